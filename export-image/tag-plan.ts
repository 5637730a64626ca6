import { HandoverError } from '../shared/errors.ts';
import { automaticTags } from '../shared/image/immutable-tag.ts';
import { metadataVariable, parseTagList } from '../shared/image/metadata-tags.ts';
import { formatReference, parseReference, type TaggedReference } from '../shared/image/reference.ts';
import { branchOf, type WorkflowEvent } from '../shared/image/workflow-event.ts';
import { quoteForeign } from '../shared/text.ts';
import type { ExportInputs } from './inputs.ts';
import type { ExportSource } from './plan.ts';

interface TagFacts {
  readonly event: WorkflowEvent;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * The references that the input `tags` gives the image, each once.
 * @throws HandoverError `invalid-input`
 */
export function chooseTags(inputs: ExportInputs, facts: TagFacts, notices: string[]): readonly TaggedReference[] {
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

/**
 * The source with the label that records its branch; a label that the user sets stays.
 * @throws HandoverError `invalid-input` for a source that can't be given a label, or for a malformed name
 */
export function withBranchLabel(
  source: ExportSource,
  name: string | undefined,
  event: WorkflowEvent,
  notices: string[],
): ExportSource {
  if (name === undefined) return source;
  if (source.kind !== 'build' || !/^[^\s=]+$/.test(name)) throw noLabel(name, source);
  const { labels } = source.build;
  if (labels.some((label) => label.startsWith(`${name}=`))) return source;
  const branch = branchOf(event);
  if (branch === undefined) {
    notices.push(`The label ${name} is left out: this run is for no branch.`);
    return source;
  }
  return { ...source, build: { ...source.build, labels: [...labels, `${name}=${branch}`] } };
}

function noLabel(name: string, source: ExportSource): HandoverError {
  const why =
    source.kind === 'build'
      ? 'a label needs a name without "=" and white space'
      : 'only a build can be given a label, and the image has another source';
  return new HandoverError(
    'invalid-input',
    `The input \`branch-label\` is "${quoteForeign(name)}": ${why}.`,
    'Set it to a name such as io.charon.feature.branch, or remove the line; label other images where they are built.',
  );
}
