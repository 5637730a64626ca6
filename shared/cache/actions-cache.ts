import { createHash } from 'node:crypto';
import { uploadBlob } from '../artifacts/blob/blob-upload.ts';
import { timeLimit } from '../base/deadline.ts';
import { asError, messageOf } from '../base/errors.ts';
import { isObject, type JsonObject, objectsOf, parseJson } from '../base/json.ts';
import { inPool } from '../base/pool.ts';
import { formatDuration, quoteForeign } from '../base/text.ts';
import type { LentChunks } from '../bytes/chunks.ts';
import { hasStatus, readText } from '../http/answer.ts';
import { type Http, httpClient } from '../http/client.ts';
import type { Proxies } from '../http/proxies.ts';
import { again, type Retries } from '../http/retry.ts';
import { field, maskedUrl, signedUrl, twirp } from '../http/twirp.ts';
import { type Digest, isDigest } from '../image/digest.ts';

// The GitHub Actions cache, as BuildKit's `type=gha` uses it. BuildKit writes one layer after another, in blocks of 1 MiB, one at a time.
// Each costs a round trip, so a cache of 1.4 GB takes minutes. Before it writes a layer, it asks whether the cache has that layer. So
// this module stores layers first, many blocks at a time, under BuildKit's keys. BuildKit then writes the others and its index. The
// format of the index is BuildKit's. Without this module, BuildKit would write everything (docs/decisions/0032).

const service = 'github.actions.results.api.v1.CacheService';
// BuildKit, cache/remotecache/gha/gha.go: blobKey. It is unchanged since 0.10.
const keyOf = (digest: Digest): string => `buildkit-blob-1-${digest}`;
// tonistiigi/go-actions-cache, cache.go: version. The same for all keys.
const version = createHash('sha256').update('|go-actionscache-1.0').digest('hex');
// Small blobs mostly wait for answers, large blobs for the connection. At most 16 blocks of 4 MiB are in memory.
const blobsAtOnce = 4;
const blocksPerBlob = 4;

/** A layer that a build cache needs. Its chunks end with an error if they don't have its digest. */
export interface CacheBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly chunks: () => LentChunks;
}

/** How many blobs were stored, and why the others were not. */
interface StoredBlobs {
  readonly count: number;
  readonly bytes: number;
  /** The first failure. No blob is started after it. */
  readonly failure: StoreFailure | undefined;
}

interface StoreFailure {
  readonly why: string;
  /** Whether an entry was reserved but not finished. No run can read or write it, and BuildKit assumes that it is stored. */
  readonly isUnfinished: boolean;
}

/** The Actions cache of this job. */
export interface ActionsCache extends AsyncDisposable {
  /** Stores blobs that the cache lacks, several at a time. After a failure, later calls store and read nothing. Never throws. */
  store(blobs: AsyncIterable<CacheBlob>, signal: AbortSignal): Promise<StoredBlobs>;
  /** Returns the layers in the newest readable index of a scope, if there is one. Most are still in the cache. */
  listed(scope: string, signal: AbortSignal): Promise<readonly Digest[] | undefined>;
}

export interface ActionsCacheOptions extends Retries {
  /** `ACTIONS_RUNTIME_TOKEN` and `ACTIONS_RESULTS_URL`. */
  readonly runtimeToken: string;
  readonly resultsUrl: string;
  readonly proxies: Proxies;
  readonly maskSecret: (secret: string) => void;
  /** The step's time limit. A blob gives up after a twentieth of it without progress, and after 2 minutes at most. */
  readonly stepMinutes: number;
}

export function actionsCache(options: ActionsCacheOptions): ActionsCache {
  const http = httpClient(options.proxies, options.signal);
  // BuildKit appends the path in the same way (go-actions-cache, cache_v2.go: urlV2).
  const origin = options.resultsUrl.replace(/\/+$/, '');
  const tools = { ...options, http, ask: twirp(http, { origin, service, token: options.runtimeToken }) };
  let failure: StoreFailure | undefined;
  return {
    store: async (blobs, signal) => {
      const stored = { count: 0, bytes: 0 };
      if (failure !== undefined) return { ...stored, failure: { ...failure, isUnfinished: false } };
      try {
        // A failure doesn't stop the other uploads, because an interrupted entry can't be written again.
        await inPool(blobs, blobsAtOnce, async (blob) => {
          if (!(await storeBlob(tools, blob, signal))) return;
          stored.count += 1;
          stored.bytes += blob.size;
        });
      } catch (error) {
        failure = { why: messageOf(error), isUnfinished: error instanceof UnfinishedEntry };
      }
      return { ...stored, failure };
    },
    listed: (scope, signal) => listedLayers(tools, scope, signal).catch(() => undefined),
    [Symbol.asyncDispose]: () => http.close(),
  };
}

interface CacheTools extends ActionsCacheOptions {
  readonly http: Http;
  readonly ask: ReturnType<typeof twirp>;
}

async function listedLayers(
  { http, ask, maskSecret }: CacheTools,
  scope: string,
  signal: AbortSignal,
): Promise<readonly Digest[] | undefined> {
  // BuildKit, gha.go: indexKey, which appends a hash of the ref and a number.
  const key = `index-${scope}-1-`;
  const found = await ask('GetCacheEntryDownloadURL', { key, restore_keys: [key], version }, { signal });
  if (found['ok'] !== true) return undefined;
  const url = signedUrl(field(found, 'signed_download_url'), 'GetCacheEntryDownloadURL');
  const answer = await http.send({ method: 'GET', url: maskedUrl(url, maskSecret), signal });
  const index = parseJson(await readText(answer));
  return isObject(index) ? objectsOf(index['layers']).flatMap(({ blob }) => (isDigest(blob) ? [blob] : [])) : undefined;
}

/** An interrupted upload. GitHub never releases its key. */
class UnfinishedEntry extends Error {}

/** Returns whether the blob was stored; false if it was there, or another job is storing it. */
async function storeBlob(
  { http, ask, maskSecret, onRetry, stepMinutes }: CacheTools,
  { digest, size, chunks }: CacheBlob,
  signal: AbortSignal,
): Promise<boolean> {
  const idleMs = Math.min(2, stepMinutes / 20) * 60_000;
  const idle = timeLimit(idleMs, new Error(`no progress for ${formatDuration(idleMs)}`));
  idle.start();
  const ends = AbortSignal.any([signal, idle.signal]);
  const [key, retries] = [keyOf(digest), { onRetry, signal: ends }];
  const call = (method: string, more: JsonObject = {}): Promise<JsonObject> =>
    again('call', () => ask(method, { key, version, ...more }, retries), { ...retries, what: method });
  try {
    const url = await reserve(call, key);
    idle.restart();
    if (url === undefined) return false;
    const target = { http, url: maskedUrl(url, maskSecret), maxConcurrent: blocksPerBlob, ...retries };
    try {
      await uploadBlob({ ...target, contentType: 'application/octet-stream' }, chunks(), idle.restart);
      // The service compares the size with the blob's.
      const answer = await call('FinalizeCacheEntryUpload', { size_bytes: String(size) });
      if (answer['ok'] !== true) throw refused(answer);
    } catch (error) {
      throw new UnfinishedEntry(messageOf(error));
    }
    return true;
  } catch (error) {
    throw idle.signal.aborted && !(error instanceof UnfinishedEntry) ? asError(idle.signal.reason) : error;
  } finally {
    idle.stop();
  }
}

type Call = (method: string, more?: JsonObject) => Promise<JsonObject>;

/** Returns a URL to write the entry to; undefined if a run can read the entry, or another job is writing it. */
async function reserve(call: Call, key: string): Promise<string | undefined> {
  const found = await call('GetCacheEntryDownloadURL', { restore_keys: [key] });
  if (found['ok'] === true && field(found, 'matched_key') === key) return undefined;
  try {
    const made = await call('CreateCacheEntry');
    if (made['ok'] === true) return signedUrl(field(made, 'signed_upload_url'), 'CreateCacheEntry');
    throw refused(made);
  } catch (error) {
    if (hasStatus(error, 409)) return undefined;
    throw error;
  }
}

function refused({ message }: JsonObject): Error {
  return new Error(typeof message === 'string' && message !== '' ? quoteForeign(message) : 'the cache refused it');
}
