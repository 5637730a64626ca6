import { HandoverError, setupBuildxHint } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { isObject } from '../../shared/base/json.ts';
import { type EventFacts, type WorkflowEvent, workflowEvent } from '../../shared/image/workflow-event.ts';

// A build cache must never decide whether an image is built. But in BuildKit, a cache that can't be written fails the build. Even with
// `ignore-error=true`, the build fails if BuildKit refuses the cache's settings (0.34: a malformed token, a folder that can't be created,
// an azblob container that doesn't respond). So the image is built first. Separate builds then write its caches, and their failures are
// reported in one notice.

// The default of `cache-from`: the Actions cache, if there is one and the builder can read it. In `cache-to`, it is the Actions cache if a
// later run can read it.
const automatic = 'auto';

/** The Actions cache service of this job. */
export interface CacheService {
  /** Whether there is a service for BuildKit's `gha` cache. */
  readonly isThere: boolean;
  /** `ACTIONS_CACHE_MODE`: the job's permission, such as `read`, `write-only` or `none`; empty if the runner doesn't set it. */
  readonly mode: string;
}

/** What happens to the caches in `cache-to`. */
export interface CacheWrites {
  /** Caches that the build itself writes. The build fails if one can't be written. */
  readonly withImage: readonly string[];
  /** `cache-to` lines of the caches that separate builds write. */
  readonly afterImage: readonly string[];
  /** A sentence for each cache that can't be written. */
  readonly problems: readonly string[];
}

/**
 * Plans which build writes each cache. An inline cache is part of the image. With `ignore-error=false`, the build fails if the cache can't
 * be written. No other cache can fail the build.
 * @param exportsCaches false for BuildKit in an engine with the classic store, which writes only inline caches
 * @throws HandoverError `unsupported-host` or `builder-unsupported` for a cache with `ignore-error=false` that can't be written
 */
export function planCacheWrites(caches: readonly string[], service: CacheService, exportsCaches: boolean): CacheWrites {
  const withImage = caches.filter((cache) => isInline(cache) || isRequired(cache));
  for (const cache of withImage) requireWritable(cache, service, exportsCaches);
  const others = caches
    .filter((cache) => !withImage.includes(cache))
    .map((cache) => ({ cache, why: whyNoWrite(cache, service) ?? (exportsCaches ? undefined : classicStore) }));
  return {
    withImage,
    afterImage: others.flatMap(({ cache, why }) => (why === undefined ? [withoutIgnoreError(cache)] : [])),
    problems: others.flatMap(({ cache, why }) => (why === undefined ? [] : [notWritten(cache, why)])),
  };
}

const classicStore = `the docker driver on the classic image store can't write it. ${setupBuildxHint}`;

function requireWritable(cache: string, service: CacheService, exportsCaches: boolean): void {
  const missing = whyNoWrite(cache, { ...service, mode: '' });
  if (missing !== undefined) {
    throw new HandoverError(
      'unsupported-host',
      `The build cache ${describeCache(cache)} can't be written, and \`ignore-error=false\` makes that an error: ${missing}.`,
      'Remove `ignore-error=false`, or use another type of cache.',
    );
  }
  if (exportsCaches || isInline(cache)) return;
  throw new HandoverError(
    'builder-unsupported',
    `The docker driver on the classic image store can't write a build cache (cache-to: ${describeCache(cache)}).`,
    `${setupBuildxHint} Or remove \`cache-to\`.`,
  );
}

/** Returns the sentence for a cache that was not written. */
export function notWritten(cache: string, why: string): string {
  const hint = /failed to reserve cache|write denied/.test(why)
    ? ' (for jobs of low-trust events, such as pull_request_target, the Actions cache is read-only)'
    : '';
  return `${describeCache(cache)} was not written: ${quoteForeign(why.replace(/\.$/, ''), 500)}${hint}.`;
}

/** Describes a cache for the log by its type and location, without fields that may be secret. */
function describeCache(cache: string): string {
  const fields = fieldsOf(cache);
  const [only, ...more] = fields;
  if (only?.value === undefined && more.length === 0) return `type=registry,ref=${quoteForeign(cache.trim())}`;
  const shown = ['type', 'ref', 'dest', 'src', 'scope', 'bucket', 'name', 'mode'];
  return shown
    .flatMap((name) => fields.filter(({ key, value = '' }) => key === name && value !== '').slice(0, 1))
    .map(({ key, value = '' }) => `${key}=${quoteForeign(value)}`)
    .join(',');
}

/** Returns whether a cache is part of its image. */
function isInline(cache: string): boolean {
  return valueOf(cache, 'type') === 'inline';
}

/** Returns whether the build fails if this cache can't be written. */
function isRequired(cache: string): boolean {
  // The false values of Go's strconv.ParseBool. BuildKit ignores all other values.
  return ['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(valueOf(cache, 'ignore-error') ?? '');
}

/** Returns whether a cache uses the Actions cache service, in the long or the short form of `cache-from`. */
function isGhaCache(cache: string): boolean {
  const text = cache.trim();
  return text === automatic || text === 'gha' || cache.split(',').some((part) => part.trim() === 'type=gha');
}

/** Returns whether only the default caches are set. */
export function isOnlyAutomatic(caches: readonly string[]): boolean {
  return caches.every((cache) => cache.trim() === automatic);
}

/** Returns the caches in the form that buildx reads. */
export function cachesRead(caches: readonly string[]): readonly string[] {
  return caches.map((cache) => (cache.trim() === automatic ? 'type=gha' : cache));
}

/** Returns the caches without the Actions cache service, and whether the inputs name that service. */
export function withoutGhaCache(caches: readonly string[]): {
  readonly caches: readonly string[];
  readonly asked: boolean;
} {
  const left = caches.filter(isGhaCache);
  return {
    caches: caches.filter((cache) => !left.includes(cache)),
    asked: left.some((cache) => cache.trim() !== automatic),
  };
}

/** Returns whether the job may read the Actions cache. */
export function mayReadCache({ isThere, mode }: CacheService): boolean {
  return isThere && mode !== 'none' && mode !== 'write-only';
}

function whyNoWrite(cache: string, { isThere, mode }: CacheService): string | undefined {
  if (valueOf(cache, 'type') !== 'gha' || valueOf(cache, 'token') !== undefined) return undefined;
  if (!isThere) return 'there is no Actions cache service here, because its token or address is missing';
  if (mode === 'read' || mode === 'none') return `this job's \`cache-mode\` is \`${mode}\` (ACTIONS_CACHE_MODE)`;
  return undefined;
}

// With `ignore-error`, buildx would hide the failure.
function withoutIgnoreError(cache: string): string {
  const fields = fieldsOf(cache);
  if (fields.every(({ key }) => key !== 'ignore-error')) return cache;
  return fields.flatMap(({ key, text }) => (key === 'ignore-error' ? [] : [text])).join(',');
}

interface Field {
  /** In lower case, as buildx reads it. */
  readonly key: string;
  readonly value: string | undefined;
  /** The original text. */
  readonly text: string;
}

/**
 * Returns which layers a cache in this job's own Actions cache service contains: those of the image, or of all stages. Returns undefined if
 * the cache is left to BuildKit: it has another type, or its line sets a service, token or repository.
 */
export function ownLayers(cache: string): 'image' | 'all' | undefined {
  const isOwn = fieldsOf(cache).every(({ key }) => ['type', 'mode', 'scope', 'timeout'].includes(key));
  if (!isOwn || valueOf(cache, 'type') !== 'gha') return undefined;
  return valueOf(cache, 'mode') === 'max' ? 'all' : 'image';
}

/** Returns the scopes of this job's own Actions cache that a build reads; undefined if the build also reads other caches. */
export function ownScopes(cacheFrom: readonly string[]): readonly string[] | undefined {
  if (cacheFrom.some((cache) => ownLayers(cache) === undefined)) return undefined;
  return [...new Set(cacheFrom.map((cache) => valueOf(cache, 'scope') ?? 'buildkit'))];
}

/** Returns the `cache-to` line that writes the layers of all stages to a folder. */
export function folderCache(directory: string): string {
  return `type=local,mode=max,${quoted(`dest=${directory}`)}`;
}

/** Returns a text as a quoted CSV field. */
export function quoted(text: string): string {
  return `"${text.replaceAll('"', '""')}"`;
}

// Parses one line of CSV as buildx does (util/buildflags/cache.go).
function fieldsOf(cache: string): readonly Field[] {
  return (cache.trim().match(/(?:"(?:[^"]|"")*"|[^,"])+/g) ?? []).map((text) => {
    const plain = /^"(.*)"$/s.exec(text)?.[1]?.replaceAll('""', '"') ?? text;
    const at = plain.indexOf('=');
    const [key, value] = at < 0 ? [plain, undefined] : [plain.slice(0, at), plain.slice(at + 1)];
    return { key: key.toLowerCase(), value, text };
  });
}

function valueOf(cache: string, key: string): string | undefined {
  return fieldsOf(cache).find((field) => field.key === key)?.value;
}

// A cache belongs to the ref of its run. A run can read the caches of its own ref, of the default branch, and of a pull request's base
// branch. Sources: GitHub docs, "Dependency caching reference"; GitHub changelog, 2026-06-26 and 2026-09-10; docs/decisions/0030.

const written = 'type=gha,mode=max';

// Events whose runs may write the cache of their branch. Runs for other events, such as issue_comment, get a read-only token or build
// another commit.
const writers: readonly string[] = [
  ...['push', 'schedule', 'workflow_dispatch', 'repository_dispatch'],
  ...['create', 'delete', 'registry_package', 'page_build'],
];

/** The facts about the job that decide what `cache-to: auto` means. */
export interface CacheFacts {
  readonly event: EventFacts;
  readonly service: CacheService;
  readonly requireCache: boolean;
}

/**
 * Replaces `auto` in `cache-to` with the Actions cache, if a later run can read it. All other caches are kept.
 * @param remarks receives a sentence for the log about that choice
 */
export function resolveCacheTo(caches: readonly string[], facts: CacheFacts, remarks: string[]): readonly string[] {
  const others = caches.filter((cache) => cache.trim() !== automatic);
  if (others.length === caches.length) return caches;
  const found = readersOf(facts);
  remarks.push(
    `cache-to: auto writes ${'why' in found ? `nothing: ${found.why}` : `${written}, for ${found.readers}`}.`,
  );
  return 'why' in found ? others : [...others, written];
}

/** The later runs that can read the cache, or why there are none. */
type Readers = { readonly readers: string } | { readonly why: string };

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
  // A `workflow_run` job runs on the default branch, but for the commit of the run that triggered it.
  if (name === 'workflow_run' ? isDefault : writers.includes(name)) {
    return { readers: isDefault ? 'all later runs' : 'the next runs of this branch and of pull requests into it' };
  }
  return { why: `a run for ${quoteForeign(name)} may not write the cache of its branch, or builds another commit` };
}

function isClosed(payload: unknown): boolean {
  return isObject(payload) && payload['action'] === 'closed';
}
