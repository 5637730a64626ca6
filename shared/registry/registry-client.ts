import { HttpError } from '../http/answer.ts';
import { httpClient } from '../http/client.ts';
import { HandoverError, messageOf, RegistryFailure, systemCodeOf } from '../base/errors.ts';
import type { Proxies } from '../http/proxies.ts';
import { type Digest, isDigest } from '../image/digest.ts';
import type { Credentials } from './logins.ts';
import { type BlobOrigin, type BlobPush, pushBlob, type PushedBlob } from './blobs.ts';
import { conversation } from './conversation.ts';
import { manifestDigest, type PushedManifest, pushManifest } from './manifests.ts';

export type { BlobOrigin, PushedBlob } from './blobs.ts';
export type { PushedManifest } from './manifests.ts';

// A registry, as far as pushing to it goes (OCI distribution-spec 1.1, "Push"): blobs that it lacks, in one request each, then
// manifests. No package of npm's does that with streams (docs/decisions/0024-a-registry-client-of-our-own.md). A blob's last bytes are
// sent only when its digest is right, and a manifest is read back: what the registry says of them is never all there is.

/** One registry. Each method throws a RegistryFailure when its attempts are used up. */
export interface RegistryClient extends AsyncDisposable {
  /**
   * The digest of what a tag, or a digest, stands for; undefined when nothing is there, or this login may not look.
   * @param wanted the digest that makes a push needless: it is believed only when the manifest can be read
   */
  manifestDigest(repository: string, name: string, wanted?: Digest): Promise<Digest | undefined>;
  /**
   * Makes sure that the repository has the blob.
   * @throws what the blob's chunks throw; HandoverError `artifact-corrupt` when they are another blob's
   */
  pushBlob(repository: string, blob: PushedBlob, options: BlobPush): Promise<BlobOrigin>;
  /**
   * Puts a manifest under a tag or its digest, and reads it back.
   * @param replaced the digest that the tag stood for before
   * @throws HandoverError `image-mismatch` when another one comes back
   */
  pushManifest(repository: string, manifest: PushedManifest, name: string, replaced?: Digest): Promise<void>;
}

export interface RegistryClientOptions {
  readonly credentials: Credentials | undefined;
  readonly proxies: Proxies;
  /** A certificate to trust in addition to the system's, in PEM. */
  readonly authority: string | undefined;
  readonly onRetry: (line: string) => void;
  readonly maskSecret: (secret: string) => void;
  readonly signal: AbortSignal;
}

/** @param host of the registry, `docker.io` for Docker Hub */
export function registryClient(host: string, options: RegistryClientOptions): RegistryClient {
  const { onRetry, signal } = options;
  const http = httpClient(options.proxies, signal, options.authority);
  const talk = conversation(host, { ...options, http });
  return {
    manifestDigest: (repository, name, wanted) =>
      failing('The look-up', repository, name, () => manifestDigest(talk, repository, name, wanted)),
    pushBlob: (repository, blob, push) => {
      const ends = { ...push, signal: AbortSignal.any([signal, push.signal]) };
      return failing('The push', repository, blob.digest, () => pushBlob(talk, repository, blob, ends, onRetry));
    },
    pushManifest: (repository, manifest, name, replaced) =>
      failing('The push', repository, name, () =>
        pushManifest(talk, repository, manifest, name, { replaced, onRetry, signal }),
      ),
    [Symbol.asyncDispose]: () => http.close(),
  };
}

/** Names what failed and where, in one kind of error; what isn't the registry's stays as it is. */
async function failing<T>(work: string, repository: string, name: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof HandoverError) throw error;
    const reference = `${repository}${isDigest(name) ? '@' : ':'}${name}`;
    const systemCode = systemCodeOf(error);
    const seen = error instanceof HttpError ? { status: error.status, why: error.serviceCode } : { systemCode };
    throw new RegistryFailure(work, [reference], messageOf(error), seen);
  }
}
