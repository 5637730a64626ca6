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

// Pushes to a registry (OCI distribution-spec 1.1, "Push"): the missing blobs, in one request each, then the manifests. No npm package
// does that with streams (docs/decisions/0024-a-registry-client-of-our-own.md). A blob's last bytes are sent only when its digest is
// verified, and a manifest is read back, so the registry's own word is never enough.

/** One registry. Each method throws a RegistryFailure when its attempts are used up. */
export interface RegistryClient extends AsyncDisposable {
  /**
   * Returns the digest of the manifest under a tag or digest; undefined when there is none, or this login can't look.
   * @param wanted the digest that makes a push unnecessary, and so must be proved by reading the manifest
   */
  manifestDigest(repository: string, name: string, wanted?: Digest): Promise<Digest | undefined>;
  /**
   * Pushes the blob unless the repository has it.
   * @throws errors of the blob's chunks; HandoverError `artifact-corrupt` when they are not the blob's
   */
  pushBlob(repository: string, blob: PushedBlob, options: BlobPush): Promise<BlobOrigin>;
  /**
   * Puts a manifest under a tag or its digest, and reads it back.
   * @param replaced the manifest's digest under that tag before
   * @throws HandoverError `image-mismatch` when the registry returns another manifest
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

/** Turns an error of the registry into a RegistryFailure, and throws others unchanged. */
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
