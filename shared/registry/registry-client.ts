import { hasStatus, HttpError } from '../http/answer.ts';
import { httpClient } from '../http/client.ts';
import { again, isFinal, isTransient } from '../http/retry.ts';
import { HandoverError, messageOf, RegistryFailure, systemCodeOf } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import type { Proxies } from '../http/proxies.ts';
import { type Digest, digestOf, isDigest } from '../image/digest.ts';
import { mediaTypes } from '../image/manifest.ts';
import { isTaken, required } from './answers.ts';
import { type BlobOrigin, type BlobPush, pushBlob, type PushedBlob } from './blobs.ts';
import { type Conversation, conversation, type ConversationOptions } from './conversation.ts';

export type { BlobOrigin, PushedBlob } from './blobs.ts';

// Pushes to a registry (OCI distribution-spec 1.1, "Push"): first the missing blobs, in one request each, then the manifests. No npm package
// does this with streams (docs/decisions/0024-a-registry-client-of-our-own.md). A blob's last bytes are sent only when its digest is
// verified, and a manifest is read back, so the registry's own word is never enough.

export interface PushedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** One registry. Each method throws a RegistryFailure when no attempts are left. */
export interface RegistryClient extends AsyncDisposable {
  /**
   * Returns the digest of the manifest under a tag or digest; undefined if there is none, or if this login can't see it.
   * @param wanted the digest that would make a push unnecessary. So it must be proved by reading the manifest
   */
  manifestDigest(repository: string, name: string, wanted?: Digest): Promise<Digest | undefined>;
  /** Pushes the blob unless the repository has it. Throws errors of its chunks; HandoverError `artifact-corrupt` for other bytes. */
  pushBlob(repository: string, blob: PushedBlob, options: BlobPush): Promise<BlobOrigin>;
  /**
   * Puts a manifest under a tag or its digest, and reads it back.
   * @param replaced the manifest's digest under that tag before; a registry with several replicas may show it for a moment
   * @throws HandoverError `image-mismatch` when the registry returns another manifest
   */
  pushManifest(repository: string, manifest: PushedManifest, name: string, replaced?: Digest): Promise<void>;
}

export interface RegistryClientOptions extends Omit<ConversationOptions, 'http'> {
  readonly proxies: Proxies;
  /** A certificate to trust in addition to the system's, in PEM. */
  readonly authority: string | undefined;
}

/** @param host of the registry, `docker.io` for Docker Hub */
export function registryClient(host: string, options: RegistryClientOptions): RegistryClient {
  const http = httpClient(options.proxies, options.signal, options.authority);
  const about = conversation(host, { ...options, http });
  return {
    manifestDigest: (repository, name, wanted) =>
      manifestDigest(about(repository), name, wanted).catch(failed('The look-up', repository, name)),
    pushBlob: (repository, blob, push) => {
      const ends = { ...push, signal: AbortSignal.any([options.signal, push.signal]) };
      return pushBlob(about(repository), blob, ends).catch(failed('The push', repository, blob.digest));
    },
    pushManifest: (repository, manifest, name, replaced) =>
      pushManifest(about(repository), manifest, name, replaced).catch(failed('The push', repository, name)),
    [Symbol.asyncDispose]: () => http.close(),
  };
}

/** @returns a handler that throws the registry's errors as a RegistryFailure, and other errors unchanged */
function failed(work: string, repository: string, name: string): (error: unknown) => never {
  return (error) => {
    if (error instanceof HandoverError) throw error;
    const reference = `${repository}${isDigest(name) ? '@' : ':'}${name}`;
    const systemCode = systemCodeOf(error);
    const seen = error instanceof HttpError ? { status: error.status, why: error.serviceCode } : { systemCode };
    throw new RegistryFailure(work, [reference], messageOf(error), seen);
  };
}

const { index, manifest, dockerIndex, dockerManifest } = mediaTypes;
const anyManifest = [index, manifest, dockerIndex, dockerManifest].join(', ');

async function manifestDigest(
  { repository, call }: Conversation,
  name: string,
  wanted: Digest | undefined,
): Promise<Digest | undefined> {
  const headers = { accept: anyManifest };
  const ask = (method: 'HEAD' | 'GET'): ReturnType<typeof call> =>
    // The answer to a failed HEAD has no message. The answer to the push will have one.
    call(`Looking for ${repository} ${name}`, `manifests/${name}`, { method, headers }, isFinal);
  const head = await ask('HEAD');
  if (head.status !== 200 && !withoutHead.includes(head.status)) return undefined;
  const claimedDigest = head.header('docker-content-digest');
  if (isDigest(claimedDigest) && claimedDigest !== wanted) return claimedDigest;
  const whole = await ask('GET');
  if (whole.status === 200) return digestOf(whole.text);
  return isDigest(claimedDigest) && unreadable.includes(whole.status) ? claimedDigest : undefined;
}

// The answers of a registry that lacks this method.
const withoutHead: readonly number[] = [405, 501];
// The answers to a login that can push or list, but not read.
const unreadable: readonly number[] = [401, 403];

async function pushManifest(
  { repository, retries, call, ask, urlOf }: Conversation,
  { bytes, mediaType, digest }: PushedManifest,
  name: string,
  replaced: Digest | undefined,
): Promise<void> {
  const path = `manifests/${name}`;
  const what = `The manifest ${repository} ${name}`;
  const request = { method: 'PUT', headers: { 'content-type': mediaType }, body: bytes } as const;
  const read = { method: 'GET', url: await urlOf(path), headers: { accept: mediaType } } as const;
  const put = await call(what, path, request, isTaken).catch(async (error: unknown) => {
    // An earlier attempt may have set an immutable tag, although its answer was lost.
    const got = isDigest(name) || !(error instanceof HttpError) ? undefined : await ask(() => read);
    if (got?.status === 200 && digestOf(got.text) === digest) return got;
    throw error;
  });
  const readBack = async (): Promise<string> => {
    const got = required(await ask(() => read), (status) => [200, ...unreadable].includes(status));
    // Only the registry's answer to the push can be checked.
    if (got.status !== 200) return put.header('docker-content-digest') || digest;
    const found = digestOf(got.text);
    if (found === replaced && found !== digest) throw new HttpError(404, '', 'the old manifest is still there');
    return found;
  };
  const isRetryable = (error: unknown): boolean => isTransient(error) || hasStatus(error, 404);
  const back = await again('call', readBack, { ...retries, what, isRetryable }).catch((error: unknown) => {
    if (!hasStatus(error, 404)) throw error;
    const said = `it was accepted (HTTP ${String(put.status)}), but can't be read back: ${error.message}`;
    throw new RegistryFailure('The push', [`${repository} ${name}`], said);
  });
  if (back === digest) return;
  throw new HandoverError(
    'image-mismatch',
    `Under ${repository} ${name} the registry has a manifest with the digest ${quoteForeign(back) || 'unknown'} after the push of ${digest}.`,
    'Another workflow may have pushed there at the same time: give each workflow its own tags, or a `concurrency` group.',
  );
}
