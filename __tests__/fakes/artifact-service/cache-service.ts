import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { isObject, stringOr, stringsOf } from '../../../shared/base/json.ts';
import type { BlobStore } from './blobs.ts';
import type { Faults } from './faults.ts';
import type { Link } from './link.ts';
import type { UrlSigner } from './signed-url.ts';
import type { TokenMint } from './token.ts';

/** Path of the service below the address of the results service. */
export const cachePath = '/twirp/github.actions.results.api.v1.CacheService/';

/** A cache entry, reserved under a key and a version. It can be read once its upload is finalised. */
export interface CacheEntry {
  readonly id: number;
  readonly key: string;
  readonly version: string;
  readonly blob: string;
  finalised: boolean;
}

export interface CacheParts {
  readonly entries: CacheEntry[];
  readonly blobs: BlobStore;
  readonly signer: UrlSigner;
  readonly tokens: TokenMint;
  readonly faults: Faults;
  readonly link: Link;
  readonly lifetimeMs: number;
  readonly blobOrigin: () => string;
}

type Body = Readonly<Record<string, unknown>>;
type Answer = readonly [status: number, body: unknown];

/**
 * Serves the part of github.actions.results.api.v1.CacheService that BuildKit's `type=gha` uses, in JSON
 * (tonistiigi/go-actions-cache, cache_v2.go). Faults match its methods by name: `CreateCacheEntry`,
 * `FinalizeCacheEntryUpload`, `GetCacheEntryDownloadURL`.
 */
export async function serveCacheService(
  parts: CacheParts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const method = (request.url ?? '').split('/').at(-1) ?? '';
  await parts.link.latency();
  const fault = parts.faults.strike(method);
  if (fault?.kind === 'reset') return void request.socket.resetAndDestroy();
  if (fault?.kind === 'hang') await sleep(fault.ms, undefined, { ref: false });
  const body: unknown = JSON.parse(await text(request));
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  const [status, answer] =
    fault?.kind === 'status'
      ? ([fault.status, { code: 'unavailable', msg: 'try again' }] as const)
      : handle(parts, method, token, isObject(body) ? body : {});
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(answer));
}

function handle(parts: CacheParts, method: string, token: string, body: Body): Answer {
  const access = parts.tokens.cacheAccess(token);
  if (access === undefined) return [401, { code: 'unauthenticated', msg: 'invalid token' }];
  const key = stringOr(body['key'], '');
  const version = stringOr(body['version'], '');
  const same = parts.entries.filter((entry) => entry.version === version);
  switch (method) {
    case 'CreateCacheEntry': {
      // The response to a job of a low-trust event (field-notes M25).
      if (access !== 'write') return [200, refusal('token has no writable scopes')];
      if (same.some((entry) => entry.key === key))
        return [409, { code: 'already_exists', msg: 'cache entry already exists' }];
      const blob = randomUUID();
      parts.blobs.reserve(blob);
      parts.entries.push({ id: parts.entries.length + 1, key, version, blob, finalised: false });
      return [
        200,
        { ok: true, signed_upload_url: parts.signer.sign(parts.blobOrigin(), blob, 'cw', parts.lifetimeMs, key) },
      ];
    }
    case 'FinalizeCacheEntryUpload': {
      const entry = same.find((one) => one.key === key && !one.finalised);
      if (entry === undefined) return [404, { code: 'not_found', msg: 'cache entry not found' }];
      const size = parts.blobs.size(entry.blob);
      if (String(size) !== String(body['size_bytes'])) return [200, { ok: false, message: 'the size does not match' }];
      entry.finalised = true;
      return [200, { ok: true, entry_id: String(entry.id) }];
    }
    case 'GetCacheEntryDownloadURL': {
      if (access === 'none') return [200, { ok: false }];
      const expected = [key, ...stringsOf(body['restore_keys'])];
      const readable = same.filter(({ finalised }) => finalised);
      const found =
        readable.find((entry) => entry.key === key) ??
        expected
          .map((prefix) => readable.findLast((entry) => entry.key.startsWith(prefix)))
          .find((entry) => entry !== undefined);
      if (found === undefined) return [200, { ok: false }];
      const url = parts.signer.sign(parts.blobOrigin(), found.blob, 'r', parts.lifetimeMs, found.key);
      return [200, { ok: true, signed_download_url: url, matched_key: found.key }];
    }
    default:
      return [404, { code: 'bad_route', msg: `no handler for ${method}` }];
  }
}

function refusal(why: string): unknown {
  return { ok: false, signed_upload_url: '', message: `cache write denied: ${why}` };
}
