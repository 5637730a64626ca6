import type { CacheService } from './cache.ts';
import { isObject } from '../../shared/base/json.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { type EventFacts, type WorkflowEvent, workflowEvent } from '../../shared/image/workflow-event.ts';

// A cache belongs to the ref of its run. A run reads the caches of its own ref, of the default branch, and of a pull request's base branch.
// Sources: GitHub docs, "Dependency caching reference"; GitHub changelog, 2026-06-26 and 2026-09-10; docs/decisions/0030.

const automatic = 'auto';
const written = 'type=gha,mode=max';

// Events of a branch that may write its cache. Others, such as issue_comment, get a read-only token, or build another commit.
const writers: readonly string[] = [
  ...['push', 'schedule', 'workflow_dispatch', 'repository_dispatch'],
  ...['create', 'delete', 'registry_package', 'page_build'],
];

/** The job, as far as it decides about `cache-to: auto`. */
export interface CacheFacts {
  readonly event: EventFacts;
  readonly service: CacheService;
  readonly requireCache: boolean;
}

/**
 * Replaces `auto` in `cache-to` by the Actions cache, if a later run can read it. All other caches are kept.
 * @param remarks receives a sentence for the log about that choice
 */
export function resolveCacheTo(caches: readonly string[], facts: CacheFacts, remarks: string[]): readonly string[] {
  const others = caches.filter((cache) => cache.trim() !== automatic);
  if (others.length === caches.length) return caches;
  const { readers, why } = readersOf(facts);
  remarks.push(`cache-to: auto writes ${readers === undefined ? `nothing: ${why}` : `${written}, for ${readers}`}.`);
  return readers === undefined ? others : [...others, written];
}

type Readers =
  /** The later runs that can read the cache. */
  | { readonly readers: string; readonly why?: undefined }
  /** Why there are none. */
  | { readonly readers?: undefined; readonly why: string };

function readersOf({ event, service, requireCache }: CacheFacts): Readers {
  const { isThere, mode } = service;
  if (requireCache) return { why: 'with `require-cache`, another build writes the cache' };
  if (!isThere) return { why: 'there is no Actions cache service here' };
  if (mode === 'read' || mode === 'none') return { why: `this job's \`cache-mode\` is \`${mode}\`` };
  return readersOfRef(event, workflowEvent(event));
}

function readersOfRef({ name, ref, payload }: EventFacts, event: WorkflowEvent): Readers {
  if (name === 'merge_group' || /^refs\/(?:heads\/)?gh-readonly-queue\//.test(ref)) {
    return { why: 'GitHub deletes the branch of a merge queue, and no other run can read its cache' };
  }
  if (ref.startsWith('refs/tags/')) return { why: 'only runs of the same tag could read it' };
  if (ref.startsWith('refs/pull/')) {
    return isClosed(payload)
      ? { why: 'this pull request is closed, and only its own runs could read it' }
      : { readers: 'the next runs of this pull request' };
  }
  if (!ref.startsWith('refs/heads/')) return { why: 'this run has no branch or pull request' };
  const isDefault = event.kind === 'branch' && event.isDefault;
  // It runs on the default branch, but for the commit of the run that triggered it.
  if (name === 'workflow_run' ? isDefault : writers.includes(name)) {
    return { readers: isDefault ? 'all later runs' : 'the next runs of this branch and of pull requests into it' };
  }
  return { why: `a run for ${quoteForeign(name)} may not write the cache of its branch, or builds another commit` };
}

function isClosed(payload: unknown): boolean {
  return isObject(payload) && payload['action'] === 'closed';
}
