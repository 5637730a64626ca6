import { httpClient, HttpError } from '../artifacts/http.ts';
import { HandoverError, messageOf, RegistryFailure, systemCodeOf } from '../base/errors.ts';
import type { Proxies } from '../base/proxies.ts';
import type { LentChunks } from '../bytes/chunks.ts';
import { type Digest, isDigest } from '../image/digest.ts';
import type { Credentials } from '../docker/credentials.ts';
import { pushBlob } from './blobs.ts';
import { conversation } from './conversation.ts';
import { manifestDigest, pushManifest } from './manifests.ts';

// A registry, as far as pushing to it goes (OCI distribution-spec 1.1, "Push"): blobs that it lacks, in one request each, then
// manifests. No package of npm's does that with streams (docs/decisions/0024-a-registry-client-of-our-own.md). A blob's last bytes are
// sent only when its digest is right, and a manifest is read back: what the registry says of them is never all there is.

/** A blob to push. */
export interface PushedBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Its bytes, from the start; called again for another attempt. */
  readonly open: () => LentChunks;
}

export interface BlobPush {
  /** Repositories of the same registry that may have it. */
  readonly mountFrom: readonly string[];
  /** Sends the blob even where the registry says that it has it. */
  readonly anyway: boolean;
  /** Called with the number of bytes that go out, and with the same number, less than zero, when they have to go out again. */
  readonly onBytes: (bytes: number) => void;
  /** Ends this push. */
  readonly signal: AbortSignal;
}

export interface PushedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** How a blob got to be there. */
export type BlobOrigin = 'there' | 'mounted' | 'pushed';

/** One registry. Each method throws a RegistryFailure when its attempts are used up. */
export interface RegistryClient extends AsyncDisposable {
  /** The digest of what a tag, or a digest, stands for; undefined when nothing is there, or this login may not look. */
  manifestDigest(repository: string, name: string): Promise<Digest | undefined>;
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
    manifestDigest: (repository, name) =>
      failing('The look-up', repository, name, () => manifestDigest(talk, repository, name)),
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
