import { invalidInput } from '../base/errors.ts';
import { isObject, parseJson, stringsOf } from '../base/json.ts';
import { quoteForeign } from '../base/text.ts';
import {
  formatReference,
  isTag,
  parseReference,
  parseTaggedReference,
  type Reference,
  type TaggedReference,
} from './reference.ts';
import type { WorkflowEvent } from './workflow-event.ts';

const shortShaLength = 7;

/**
 * Returns the tag that is unique to the commit: `pr-<number>-<sha>`, `merge-queue-pr-<number>-<sha>`, `<branch or git tag>-<sha>`, or
 * `sha-<sha>`. `<sha>` is the first 7 characters of the commit. A git tag can move, so its name is not enough.
 * @returns undefined if the event has no commit
 */
export function immutableTag(event: WorkflowEvent): string | undefined {
  if (event.kind === 'none') return undefined;
  const short = event.sha.slice(0, shortShaLength);
  if (event.kind === 'pull-request') return `pr-${String(event.number)}-${short}`;
  if (event.kind === 'merge-queue') return `merge-queue-pr-${String(event.number)}-${short}`;
  if (event.kind === 'commit') return `sha-${short}`;
  // `feature/Add_New-Feature` becomes `feature-add-new-feature`. 120 characters leave room for `-<short sha>` in Docker's 128.
  const name = event.name
    .toLowerCase()
    .replace(/[^a-z0-9.-]/gu, '-')
    .replace(/-{2,}/g, '-');
  return `${fitted(name, 120) || event.kind}-${short}`;
}

/**
 * Returns the tags of `tags: auto`: the immutable tag, the git tag's name, `latest` on the default branch, and `sha-<sha>`. Returns none
 * without a commit.
 */
function automaticTags(event: WorkflowEvent): readonly string[] {
  const immutable = immutableTag(event);
  if (event.kind === 'none' || immutable === undefined) return [];
  const tags = [
    immutable,
    // `v1.2.3+build.5` becomes `v1.2.3-build.5`.
    ...(event.kind === 'tag' ? [fitted(event.name.replace(/[^\w.-]+/gu, '-'), 128)] : []),
    ...(event.kind === 'branch' && event.isDefault ? ['latest'] : []),
    `sha-${event.sha.slice(0, shortShaLength)}`,
  ];
  return [...new Set(tags)].filter(isTag);
}

function fitted(tag: string, maxLength: number): string {
  return tag
    .replace(/^[.-]+/, '')
    .slice(0, maxLength)
    .replace(/-+$/, '');
}

/**
 * Reads an output of docker/metadata-action: `tags` (one reference per line) or `json` (an object with `tags`). Drops empty lines.
 * @throws HandoverError `invalid-input` with the text, if it contains no reference
 */
export function parseMetadataTags(text: string): readonly [Reference, ...Reference[]] {
  return parseTagList(text, parseReference);
}

function parseTagList<T extends Reference>(text: string, parse: (line: string) => T): readonly [T, ...T[]] {
  const [first, ...rest] = tagLines(text).map(parse);
  if (first !== undefined) return [first, ...rest];
  throw invalidInput(
    `No image reference in the metadata output: received "${quoteForeign(text)}".`,
    'Pass ${{ steps.meta.outputs.tags }} and check that the step has the id "meta" and ran before this one.',
  );
}

// docker/metadata-action exports each output as `DOCKER_METADATA_OUTPUT_<NAME>`, unless DOCKER_METADATA_SET_OUTPUT_ENV is false
// (src/main.ts; TAG_NAMES since 5.9).
function metadataVariable(env: TagFacts['metadata']): { readonly name: string; readonly text: string } | undefined {
  const variables = ['TAGS', 'JSON', 'TAG_NAMES', 'VERSION'].map((output) => {
    const name = `DOCKER_METADATA_OUTPUT_${output}`;
    return { name, text: env[name]?.trim() ?? '' };
  });
  return variables.find(({ text }) => text !== '');
}

/** Returns the lines of a text, without empty ones. */
export function lines(text: string): readonly string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

// The action's `sep-tags` can be a comma. References never contain commas.
function tagLines(text: string): readonly string[] {
  const json = text.trimStart().startsWith('{') ? parseJson(text) : undefined;
  const parts = isObject(json) ? stringsOf(json['tags']) : [text];
  return parts.flatMap((part) => lines(part.replaceAll(',', '\n')));
}

/** @param repository the repository of bare tags, which metadata-action returns when its input `images` is empty */
function taggedReference(line: string, repository: string | undefined): TaggedReference {
  if (/[/:@]/.test(line)) return parseTaggedReference(line);
  if (repository !== undefined) return parseTaggedReference(`${repository}:${line}`);
  throw invalidInput(
    `"${quoteForeign(line)}" in the list of tags is a tag without a repository.`,
    'Write the full reference, such as ghcr.io/org/charon:1.2.3, or set `repository`.',
  );
}

interface TagInputs {
  readonly tags: string | undefined;
  readonly repository: string | undefined;
}

interface TagFacts {
  readonly event: WorkflowEvent;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Returns the references in the input `tags`, each once.
 * @throws HandoverError `invalid-input`
 */
export function chooseTags(inputs: TagInputs, facts: TagFacts, notices: string[]): readonly TaggedReference[] {
  const repository = requireRepository(inputs.repository);
  const text = tagText(inputs.tags, repository, facts, notices);
  const tags = text === undefined ? [] : parseTagList(text, (line) => taggedReference(line, repository));
  return [...new Map(tags.map((tag) => [formatReference(tag), tag])).values()];
}

function tagText(
  given: string | undefined,
  repository: string | undefined,
  { event, metadata }: TagFacts,
  notices: string[],
): string | undefined {
  if (given !== 'auto') return given;
  const variable = metadataVariable(metadata);
  if (variable !== undefined) {
    notices.push(`tags: auto takes the tags of docker/metadata-action, from ${variable.name}.`);
    return variable.text;
  }
  if (repository === undefined)
    throw invalidInput(
      '`tags: auto` has no repository, and docker/metadata-action has set no tags in the environment.',
      'Set `repository`, such as ghcr.io/${{ github.repository }}, or run docker/metadata-action before this step.',
    );
  if (event.kind === 'none')
    throw invalidInput(
      `\`tags: auto\` can't create tags for this run: ${event.reason}.`,
      'Set `tags` to the references of the image, one per line.',
    );
  return automaticTags(event).join('\n');
}

// Returns the text unchanged, so that each reference made from it keeps the original spelling.
function requireRepository(given: string | undefined): string | undefined {
  if (given === undefined) return undefined;
  const { tag, digest } = parseReference(given);
  if (tag === undefined && digest === undefined) return given;
  throw invalidInput(
    `The input \`repository\` is "${quoteForeign(given)}"; expected a repository without a tag or digest.`,
    'Set it to the repository alone, such as ghcr.io/org/charon.',
  );
}

export function loweredNotices(references: readonly (Reference | undefined)[]): readonly string[] {
  const firsts = new Map<string, string>();
  for (const { repository, loweredFrom } of references.filter((one) => one !== undefined)) {
    if (loweredFrom !== undefined && !firsts.has(repository)) firsts.set(repository, loweredFrom);
  }
  return [...firsts].map(([repository, from]) => `Repositories are lower-case: ${from} becomes ${repository}.`);
}
