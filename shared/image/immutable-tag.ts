import { isTag } from './reference.ts';
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
