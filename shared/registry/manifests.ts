import { again, HttpError, isTransient, isTransientStatus } from '../artifacts/http.ts';
import { HandoverError, RegistryFailure } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { type Digest, digestOf, isDigest } from '../image/digest.ts';
import { mediaTypes } from '../image/manifest.ts';
import { type Conversation, required } from './conversation.ts';
import { pathOf, pushes } from './paths.ts';

// Manifests in a registry: what a name stands for, and a new one under a name (distribution-spec 1.1, "Pushing Manifests").

export interface PushedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

const anyManifest = [mediaTypes.index, mediaTypes.manifest, mediaTypes.dockerIndex, mediaTypes.dockerManifest].join(
  ', ',
);

/** The digest of what a tag, or a digest, stands for; undefined when nothing is there, or it may not be seen by this login. */
export async function manifestDigest(
  { call }: Conversation,
  repository: string,
  name: string,
): Promise<Digest | undefined> {
  const path = `/v2/${pathOf(repository)}/manifests/${name}`;
  const headers = { accept: anyManifest };
  const ask = (method: 'HEAD' | 'GET'): ReturnType<typeof call> =>
    // To an error the answer to a HEAD has no words, that to a push has.
    call(`Looking for ${repository} ${name}`, [pushes(repository)], path, { method, headers }, isFinal);
  const head = await ask('HEAD');
  if (head.status !== 200) return undefined;
  const told = head.header('docker-content-digest');
  if (isDigest(told)) return told;
  const whole = await ask('GET');
  return whole.status === 200 ? digestOf(whole.text) : undefined;
}

const isFinal = (status: number): boolean => !isTransientStatus(status);
// 201 is the specification's; others are seen with registries and the proxies before them, and taken by containerd.
export const isTaken = (status: number): boolean => [200, 201, 202, 204].includes(status);

/**
 * Puts a manifest under a name, and reads it back.
 * @param replaced the digest that the name stood for before: a registry of several replicas may show it for a moment
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
  const put = await call(what, scopes, path, request, isTaken);
  const url = new URL(path, await origin()).href;
  const readBack = async (): Promise<string> => {
    const read = { method: 'GET', url, headers: { accept: mediaType } } as const;
    const got = required(await ask(scopes, () => read), (status) => [200, 401, 403].includes(status));
    if (got.status !== 200) return put.header('docker-content-digest');
    const found = digestOf(got.text);
    if (found === options.replaced && found !== digest) throw new HttpError(404, '', 'the old manifest is still there');
    return found;
  };
  const isRetryable = (error: unknown): boolean => isTransient(error) || isMissing(error);
  const back = await again('call', readBack, { ...options, what: () => what, isRetryable }).catch((error: unknown) => {
    if (!isMissing(error)) throw error;
    const said = `it was taken (HTTP ${String(put.status)}), but can't be read back: ${error.message}`;
    throw new RegistryFailure('The push', [`${repository} ${name}`], said);
  });
  if (back === digest) return;
  throw new HandoverError(
    'image-mismatch',
    `Under ${repository} ${name} the registry has a manifest with the digest ${quoteForeign(back) || 'unknown'} after the push of ${digest}.`,
    'Somebody else may have pushed there at the same moment: give each workflow tags of its own, or a `concurrency` group.',
  );
}

function isMissing(error: unknown): error is HttpError {
  return error instanceof HttpError && error.status === 404;
}
