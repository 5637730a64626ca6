import { HttpError } from '../http/answer.ts';
import { again, isTransient, isTransientStatus } from '../http/retry.ts';
import { HandoverError, RegistryFailure } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { type Digest, digestOf, isDigest } from '../image/digest.ts';
import { mediaTypes } from '../image/manifest.ts';
import { required } from './answers.ts';
import type { Conversation } from './conversation.ts';
import { pathOf, pushes } from './locations.ts';

// Finds and pushes manifests in a registry (distribution-spec 1.1, "Pushing Manifests").

export interface PushedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

const anyManifest = [mediaTypes.index, mediaTypes.manifest, mediaTypes.dockerIndex, mediaTypes.dockerManifest].join(
  ', ',
);

/**
 * Returns the digest of the manifest under a tag or digest; undefined when there is none, or this login can't see it.
 * @param wanted the digest that makes a push unnecessary, and so must be proved by reading the manifest
 */
export async function manifestDigest(
  { call }: Conversation,
  repository: string,
  name: string,
  wanted?: Digest,
): Promise<Digest | undefined> {
  const path = `/v2/${pathOf(repository)}/manifests/${name}`;
  const headers = { accept: anyManifest };
  const ask = (method: 'HEAD' | 'GET'): ReturnType<typeof call> =>
    // An error's answer to a HEAD has no message; the answer to a push has one.
    call(`Looking for ${repository} ${name}`, [pushes(repository)], path, { method, headers }, isFinal);
  const head = await ask('HEAD');
  if (head.status !== 200 && !withoutHead.includes(head.status)) return undefined;
  const claimedDigest = head.header('docker-content-digest');
  if (isDigest(claimedDigest) && claimedDigest !== wanted) return claimedDigest;
  const whole = await ask('GET');
  if (whole.status === 200) return digestOf(whole.text);
  return isDigest(claimedDigest) && unreadable.includes(whole.status) ? claimedDigest : undefined;
}

// A registry without this method.
const withoutHead: readonly number[] = [405, 501];
// A login that can push or look, but not read.
const unreadable: readonly number[] = [401, 403];
const isFinal = (status: number): boolean => !isTransientStatus(status);
// 201 is the specification's; some registries and proxies answer with the others, which containerd accepts.
export const isTaken = (status: number): boolean => [200, 201, 202, 204].includes(status);

/**
 * Puts a manifest under a name, and reads it back.
 * @param replaced the manifest's digest under that name before; a registry with several replicas may show it for a moment
 */
export async function pushManifest(
  { call, ask, origin }: Conversation,
  repository: string,
  { bytes, mediaType, digest }: PushedManifest,
  name: string,
  options: {
    readonly replaced: Digest | undefined;
    readonly onRetry: (line: string) => void;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const path = `/v2/${pathOf(repository)}/manifests/${name}`;
  const scopes = [pushes(repository)];
  const what = `The manifest ${repository} ${name}`;
  const request = { method: 'PUT', headers: { 'content-type': mediaType }, body: bytes } as const;
  const url = new URL(path, await origin()).href;
  const read = { method: 'GET', url, headers: { accept: mediaType } } as const;
  const put = await call(what, scopes, path, request, isTaken).catch(async (error: unknown) => {
    // An attempt whose answer was lost may have set an immutable tag.
    const got = isDigest(name) || !(error instanceof HttpError) ? undefined : await ask(scopes, () => read);
    if (got?.status === 200 && digestOf(got.text) === digest) return got;
    throw error;
  });
  const readBack = async (): Promise<string> => {
    const got = required(await ask(scopes, () => read), (status) => [200, ...unreadable].includes(status));
    // Only the registry's answer to the push is left.
    if (got.status !== 200) return put.header('docker-content-digest') || digest;
    const found = digestOf(got.text);
    if (found === options.replaced && found !== digest) throw new HttpError(404, '', 'the old manifest is still there');
    return found;
  };
  const isRetryable = (error: unknown): boolean => isTransient(error) || isMissing(error);
  const back = await again('call', readBack, { ...options, what: () => what, isRetryable }).catch((error: unknown) => {
    if (!isMissing(error)) throw error;
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

function isMissing(error: unknown): error is HttpError {
  return error instanceof HttpError && error.status === 404;
}
