import { HandoverError } from '../base/errors.ts';
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
/** What leaves room for `-<short sha>` in Docker's 128 characters. */
const maxNameLength = 120;
const maxTagLength = 128;

/**
 * The one tag that stands for this commit, and is never given to another: `pr-<number>-<sha>`,
 * `merge-queue-pr-<number>-<sha>`, `<branch or git tag>-<sha>` (a git tag may be moved, so its name alone is not
 * enough), or `sha-<sha>` for a bare commit; `<sha>` is the first 7 characters of the commit.
 * @returns undefined when the event names no commit
 */
export function immutableTag(event: WorkflowEvent): string | undefined {
  if (event.kind === 'none') return undefined;
  const short = shortSha(event.sha);
  if (event.kind === 'pull-request') return `pr-${String(event.number)}-${short}`;
  if (event.kind === 'merge-queue') return `merge-queue-pr-${String(event.number)}-${short}`;
  if (event.kind === 'commit') return `sha-${short}`;
  return `${cleanName(event.name) || event.kind}-${short}`;
}

/**
 * The tags of `tags: auto`: the immutable tag, the git tag's name, `latest` on the default branch, and `sha-<sha>`.
 * None when the event names no commit.
 * @internal
 */
export function automaticTags(event: WorkflowEvent): readonly string[] {
  const immutable = immutableTag(event);
  if (event.kind === 'none' || immutable === undefined) return [];
  const tags = [
    immutable,
    ...(event.kind === 'tag' ? [cleanGitTag(event.name)] : []),
    ...(event.kind === 'branch' && event.isDefault ? ['latest'] : []),
    `sha-${shortSha(event.sha)}`,
  ];
  return [...new Set(tags)].filter(isTag);
}

function shortSha(sha: string): string {
  return sha.slice(0, shortShaLength);
}

/** A branch's name as the first part of a tag: `feature/Add_New-Feature` is `feature-add-new-feature`. */
function cleanName(name: string): string {
  return name
    .toLowerCase()
    .replace(/[^a-z0-9.-]/gu, '-')
    .replace(/-{2,}/g, '-')
    .replace(/^[.-]+/, '')
    .slice(0, maxNameLength)
    .replace(/-+$/, '');
}

/** A git tag as a tag of an image: `v1.2.3` stays, `v1.2.3+build.5` is `v1.2.3-build.5`. */
function cleanGitTag(name: string): string {
  return name
    .replace(/[^\w.-]+/gu, '-')
    .replace(/^[.-]+/, '')
    .slice(0, maxTagLength)
    .replace(/-+$/, '');
}

/**
 * Reads what docker/metadata-action puts out: `tags` (one reference per line) or `json` (an object with `tags`).
 * Empty lines are dropped; the order stays, and the first is the action's own first choice.
 * @throws HandoverError `invalid-input` when nothing is left, showing what was received
 */
export function parseMetadataTags(text: string): readonly [Reference, ...Reference[]] {
  const [first, ...rest] = tagLines(text).map(parseReference);
  if (first === undefined) throw noReference(text);
  return [first, ...rest];
}

/**
 * The same as the references an image is given, each with a tag.
 * @param repository what a bare tag belongs to: metadata-action puts out bare tags when its input `images` is empty
 * @throws HandoverError `invalid-input` when nothing is left, for a malformed line, or for a bare tag without repository
 * @internal
 */
export function parseTagList(text: string, repository: string | undefined): readonly TaggedReference[] {
  const found = tagLines(text).map((line) => taggedReference(line, repository));
  if (found.length === 0) throw noReference(text);
  return found;
}

/** What docker/metadata-action left in the environment, and in which variable. */
interface MetadataVariable {
  readonly name: string;
  readonly text: string;
}

/**
 * Finds the tags that docker/metadata-action left for the steps after it (its src/main.ts: each output is exported as
 * `DOCKER_METADATA_OUTPUT_<NAME>`, unless DOCKER_METADATA_SET_OUTPUT_ENV is false; TAG_NAMES since 5.9).
 * @param env the variables, by name
 * @returns undefined when it didn't run; an empty output of a run that left something else is returned as it is
 * @internal
 */
export function metadataVariable(env: Readonly<Record<string, string>>): MetadataVariable | undefined {
  const variables = ['TAGS', 'JSON', 'TAG_NAMES', 'VERSION'].map((output) => {
    const name = `DOCKER_METADATA_OUTPUT_${output}`;
    return { name, text: env[name]?.trim() ?? '' };
  });
  return variables.find(({ text }) => text !== '');
}

/** Lines of a multi-line output, one argument each; empty lines dropped. */
export function lines(text: string): readonly string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

// The action's `sep-tags` may be a comma, which no reference contains.
function tagLines(text: string): readonly string[] {
  const json = text.trimStart().startsWith('{') ? parseJson(text) : undefined;
  const parts = isObject(json) ? stringsOf(json['tags']) : [text];
  return parts.flatMap((part) => lines(part.replaceAll(',', '\n')));
}

function taggedReference(line: string, repository: string | undefined): TaggedReference {
  if (/[/:@]/.test(line)) return parseTaggedReference(line);
  if (repository !== undefined) return parseTaggedReference(`${repository}:${line}`);
  throw new HandoverError(
    'invalid-input',
    `"${quoteForeign(line)}" in the list of tags is a tag without a repository.`,
    'Write the whole reference, such as ghcr.io/org/charon:1.2.3, or set `repository`.',
  );
}

function noReference(text: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `No image reference in the metadata output: received "${quoteForeign(text)}".`,
    'Pass ${{ steps.meta.outputs.tags }} and check that the step has the id "meta" and ran before this one.',
  );
}

/** The inputs that decide which references an image is published under. */
interface TagInputs {
  readonly tags: string | undefined;
  readonly repository: string | undefined;
}

interface TagFacts {
  readonly event: WorkflowEvent;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * The references that the input `tags` gives the image, each once.
 * @throws HandoverError `invalid-input`
 */
export function chooseTags(inputs: TagInputs, facts: TagFacts, notices: string[]): readonly TaggedReference[] {
  const repository = requireRepository(inputs.repository);
  const tags = tagsOf(inputs.tags, repository, facts, notices);
  return [...new Map(tags.map((tag) => [formatReference(tag), tag])).values()];
}

function tagsOf(
  given: string | undefined,
  repository: string | undefined,
  { event, metadata }: TagFacts,
  notices: string[],
): readonly TaggedReference[] {
  if (given === undefined) return [];
  if (given !== 'auto') return parseTagList(given, repository);
  const variable = metadataVariable(metadata);
  if (variable !== undefined) {
    notices.push(`tags: auto takes the tags of docker/metadata-action, from ${variable.name}.`);
    return parseTagList(variable.text, repository);
  }
  if (repository === undefined) throw noRepository();
  if (event.kind === 'none') throw noTags(event.reason);
  return parseTagList(automaticTags(event).join('\n'), repository);
}

// Kept as it was given: each reference made of it then knows what was lowered.
function requireRepository(given: string | undefined): string | undefined {
  if (given === undefined) return undefined;
  const { tag, digest } = parseReference(given);
  if (tag === undefined && digest === undefined) return given;
  throw new HandoverError(
    'invalid-input',
    `The input \`repository\` is "${quoteForeign(given)}"; expected a repository without a tag or digest.`,
    'Set it to the repository alone, such as ghcr.io/org/charon.',
  );
}

function noRepository(): HandoverError {
  return new HandoverError(
    'invalid-input',
    '`tags: auto` has no repository, and docker/metadata-action left no tags in the environment.',
    'Set `repository`, such as ghcr.io/${{ github.repository }}, or run docker/metadata-action before this step.',
  );
}

function noTags(reason: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `\`tags: auto\` can't tell what this run is for: ${reason}.`,
    'Write the references of the image into `tags`, one a line.',
  );
}

/** One notice for each repository that had upper-case letters. */
export function loweredNotices(references: readonly (Reference | undefined)[]): readonly string[] {
  const firsts = new Map<string, string>();
  for (const { repository, loweredFrom } of references.filter((one) => one !== undefined)) {
    if (loweredFrom !== undefined && !firsts.has(repository)) firsts.set(repository, loweredFrom);
  }
  return [...firsts].map(([repository, from]) => `Repositories are lower-case: ${from} is read as ${repository}.`);
}
