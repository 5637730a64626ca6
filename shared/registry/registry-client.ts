import { createHash } from 'node:crypto';
import type { Dispatcher } from 'undici';
import { again, httpClient, HttpError, type HttpRequest, textOf } from '../artifacts/http.ts';
import { asError, HandoverError, messageOf, RegistryFailure, systemCodeOf } from '../base/errors.ts';
import { isObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import type { Proxies } from '../base/proxies.ts';
import { quoteForeign } from '../base/text.ts';
import { type LentChunks, viewOf } from '../bytes/chunks.ts';
import { type Digest, digestOf, isDigest } from '../image/digest.ts';
import { mediaTypes } from '../image/manifest.ts';
import { canonicalReference } from '../image/reference.ts';
import type { Credentials } from '../docker/credentials.ts';
import { authorization, isLoopback, parseChallenges } from './authorization.ts';

// A registry, as far as pushing to it goes (OCI distribution-spec 1.1, "Push"): blobs that it lacks, in one request each, then
// manifests. No package of npm's does that with streams (docs/decisions/0024-a-registry-client-of-our-own.md). A blob's last bytes are
// sent only when its digest is right, and a manifest is read back: what the registry says of them is never all there is.

/** A blob to push. */
export interface PushedBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Its bytes, from the start; called again for another attempt. `onBytes` is told of what has been read. */
  readonly open: () => LentChunks;
}

export interface PushedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** How a blob got to be there. */
export type BlobWay = 'there' | 'mounted' | 'pushed';

/** One registry. Each method throws a RegistryFailure when its attempts are used up. */
export interface RegistryClient extends AsyncDisposable {
  /** The digest of what a tag, or a digest, stands for; undefined when nothing is there. */
  manifestDigest(repository: string, name: string): Promise<Digest | undefined>;
  /**
   * Sees to it that the repository has the blob.
   * @param mountFrom repositories of the same registry that may have it
   * @param onBytes told of bytes that go out, and of them once more, less than zero, when they have to go out again
   * @throws what the blob's chunks throw; HandoverError `artifact-corrupt` when they are another blob's
   */
  pushBlob(
    repository: string,
    blob: PushedBlob,
    mountFrom: readonly string[],
    onBytes: (bytes: number) => void,
  ): Promise<BlobWay>;
  /** Puts a manifest under a tag or its digest, and reads it back. */
  pushManifest(repository: string, manifest: PushedManifest, name: string): Promise<void>;
}

export interface RegistryClientOptions {
  readonly credentials: Credentials | undefined;
  readonly proxies: Proxies;
  /** A certificate to trust beside the usual ones, in PEM. */
  readonly authority: string | undefined;
  readonly onRetry: (line: string) => void;
  readonly maskSecret: (secret: string) => void;
  readonly signal: AbortSignal;
}

// moby registry/config.go: where Docker Hub's API is.
const apiHosts: Readonly<Record<string, string>> = { 'docker.io': 'registry-1.docker.io' };

/** @param host of the registry, `docker.io` for Docker Hub */
export function registryClient(host: string, options: RegistryClientOptions): RegistryClient {
  const http = httpClient(options.proxies, options.signal, options.authority);
  const login = authorization({ ...options, http });
  let base: Promise<string> | undefined;
  const findBase = (): Promise<string> =>
    (base ??= (
      isLoopback(host) ? schemeOf(host, (url) => http.send({ method: 'GET', url })) : Promise.resolve('https')
    ).then((scheme) => `${scheme}://${apiHosts[host] ?? host}`));

  /** One request, with an answer to the registry's challenge if there is one. */
  const ask = async (scopes: readonly string[], request: () => HttpRequest): Promise<Answer> => {
    const own = await findBase();
    let header: string | undefined;
    const send = async (): Promise<Dispatcher.ResponseData> => {
      const asked = request();
      // A registry may have its uploads go elsewhere, where our login is nobody's business.
      header = new URL(asked.url).origin === new URL(own).origin ? login.header(scopes) : undefined;
      const headers = { ...asked.headers, ...(header === undefined ? {} : { authorization: header }) };
      return http.send({ ...asked, headers });
    };
    const first = await answerOf(await send());
    if (first.status !== 401) return first;
    const challenges = parseChallenges(first.header('www-authenticate'));
    return (await login.answer(challenges, scopes, header)) ? answerOf(await send()) : first;
  };

  const call = async (
    what: string,
    scopes: readonly string[],
    path: string,
    request: Omit<HttpRequest, 'url'>,
    accepted: readonly number[],
  ): Promise<Answer> => {
    const { onRetry, signal } = options;
    const url = (await findBase()) + path;
    return again('call', async () => required(await ask(scopes, () => ({ ...request, url })), accepted), {
      ...{ what: () => what, onRetry, signal },
    });
  };

  const client = { options, findBase, ask, call };
  return {
    manifestDigest: (repository, name) =>
      failing('The look-up', repository, name, () => headManifest(client, repository, name)),
    pushBlob: (repository, blob, mountFrom, onBytes) =>
      failing('The push', repository, blob.digest, () => pushBlob(client, repository, blob, mountFrom, onBytes)),
    pushManifest: (repository, manifest, name) =>
      failing('The push', repository, name, () => pushManifest(client, repository, manifest, name)),
    [Symbol.asyncDispose]: () => http.close(),
  };
}

/** What a registry answered, read to its end. */
interface Answer {
  readonly status: number;
  /** Empty when there is none. */
  readonly header: (name: string) => string;
  readonly text: string;
  readonly retryAfterMs: number | undefined;
}

interface Client {
  readonly options: RegistryClientOptions;
  readonly findBase: () => Promise<string>;
  readonly ask: (scopes: readonly string[], request: () => HttpRequest) => Promise<Answer>;
  readonly call: (
    what: string,
    scopes: readonly string[],
    path: string,
    request: Omit<HttpRequest, 'url'>,
    accepted: readonly number[],
  ) => Promise<Answer>;
}

async function answerOf(response: Dispatcher.ResponseData): Promise<Answer> {
  const header = (name: string): string => [response.headers[name] ?? ''].flat().join(', ');
  const seconds = Number(header('retry-after') || NaN);
  return {
    status: response.statusCode,
    header,
    text: await textOf(response),
    retryAfterMs: Number.isFinite(seconds) ? Math.min(seconds, 60) * 1000 : undefined,
  };
}

function required(answer: Answer, accepted: readonly number[]): Answer {
  if (accepted.includes(answer.status)) return answer;
  throw new HttpError(answer.status, '', `HTTP ${String(answer.status)}${wordsOf(answer)}`, answer.retryAfterMs);
}

/** What the registry said, in its own words (distribution-spec, "Error Codes"). */
function wordsOf({ text }: Answer): string {
  const body = parseJson(text);
  const errors = isObject(body) ? objectsOf(body['errors']) : [];
  const said = errors.map(({ code, message }) =>
    [stringOr(code, ''), stringOr(message, '')].filter(Boolean).join(': '),
  );
  const words = said.length > 0 ? said.join('; ') : text.trim();
  return words === '' ? '' : ` (${quoteForeign(words, 300)})`;
}

/** Names what failed and where, in one kind of error; what isn't the registry's stays as it is. */
async function failing<T>(work: string, repository: string, name: string, doIt: () => Promise<T>): Promise<T> {
  try {
    return await doIt();
  } catch (error) {
    if (error instanceof HandoverError) throw error;
    const reference = `${repository}${isDigest(name) ? '@' : ':'}${name}`;
    throw new RegistryFailure(work, [reference], `${messageOf(error)}${certificateHint(error)}`);
  }
}

// Node, tls: "X509 certificate error codes".
function certificateHint(error: unknown): string {
  const code = systemCodeOf(error) ?? '';
  return /CERT|SELF_SIGNED|UNABLE_TO/.test(code) ? ` (${code}); give its certificate authority in registry-ca` : '';
}

/** How a registry on the loopback interface is spoken to; elsewhere it is always TLS, as with docker. */
async function schemeOf(
  host: string,
  send: (url: string) => Promise<Dispatcher.ResponseData>,
): Promise<'http' | 'https'> {
  try {
    const response = await send(`https://${host}/v2/`);
    await response.body.dump();
    return 'https';
  } catch (error) {
    const code = systemCodeOf(error) ?? '';
    // What a server without TLS does with a handshake.
    const isPlain = /^(?:ERR_SSL_|EPROTO|ECONNRESET|UND_ERR_SOCKET)/.test(code);
    if (isPlain) return 'http';
    throw asError(error);
  }
}

/** A repository's path in its registry: `library/` is spelled out on Docker Hub. */
function pathOf(repository: string): string {
  const whole = canonicalReference({ repository });
  return whole.slice(whole.indexOf('/') + 1);
}

const pulls = (repository: string): string => `repository:${pathOf(repository)}:pull`;
const pushes = (repository: string): string => `repository:${pathOf(repository)}:pull,push`;

const manifestTypes = [
  mediaTypes.index,
  mediaTypes.manifest,
  mediaTypes.dockerIndex,
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

// Who may push may not always read; and to an error the answer to a HEAD has no words, that to a push has.
const notToBeSeen = [401, 403, 404] as const;

async function headManifest({ call }: Client, repository: string, name: string): Promise<Digest | undefined> {
  const path = `/v2/${pathOf(repository)}/manifests/${name}`;
  const headers = { accept: manifestTypes };
  const scopes = [pushes(repository)];
  const what = `Looking for ${repository} ${name}`;
  const answer = await call(what, scopes, path, { method: 'HEAD', headers }, [200, ...notToBeSeen]);
  if (answer.status !== 200) return undefined;
  const told = answer.header('docker-content-digest');
  if (isDigest(told)) return told;
  const whole = await call(what, scopes, path, { method: 'GET', headers }, [200, ...notToBeSeen]);
  return whole.status === 200 ? digestOf(whole.text) : undefined;
}

async function pushManifest(
  { call }: Client,
  repository: string,
  { bytes, mediaType, digest }: PushedManifest,
  name: string,
): Promise<void> {
  const path = `/v2/${pathOf(repository)}/manifests/`;
  const scopes = [pushes(repository)];
  const what = `The manifest ${repository} ${name}`;
  const headers = { 'content-type': mediaType };
  const put = await call(what, scopes, path + name, { method: 'PUT', headers, body: bytes }, [201]);
  const read = { method: 'GET', headers: { accept: mediaType } } as const;
  const got = await call(what, scopes, path + name, read, [200, 401, 403]);
  const back = got.status === 200 ? digestOf(got.text) : put.header('docker-content-digest');
  if (back === digest) return;
  throw new HandoverError(
    'image-mismatch',
    `Under ${repository} ${name} the registry has a manifest with the digest ${quoteForeign(back) || 'unknown'} after the push of ${digest}.`,
    'Somebody else may have pushed there at the same moment: give each workflow tags of its own, or a `concurrency` group.',
  );
}

async function pushBlob(
  client: Client,
  repository: string,
  blob: PushedBlob,
  mountFrom: readonly string[],
  onBytes: (bytes: number) => void,
): Promise<BlobWay> {
  const { call } = client;
  const { digest } = blob;
  const path = pathOf(repository);
  const scopes = [pushes(repository)];
  // A registry may send us on to where it keeps its blobs.
  const found = [200, 301, 302, 303, 307, 308];
  const what = `The blob ${digest}`;
  const head = await call(what, scopes, `/v2/${path}/blobs/${digest}`, { method: 'HEAD' }, [...found, ...notToBeSeen]);
  if (found.includes(head.status)) return 'there';
  for (const other of mountFrom.filter((one) => pathOf(one) !== path)) {
    if (await mounts(client, repository, other, digest)) return 'mounted';
  }
  await upload(client, repository, blob, onBytes);
  return 'pushed';
}

/** Whether the registry takes the blob over from another repository. That it doesn't, or that we may not look there, is no trouble. */
async function mounts({ call }: Client, repository: string, other: string, digest: Digest): Promise<boolean> {
  const query = new URLSearchParams({ mount: digest, from: pathOf(other) }).toString();
  const path = `/v2/${pathOf(repository)}/blobs/uploads/?${query}`;
  const scopes = [pushes(repository), pulls(other)];
  const answer = await call(`The mount of ${digest}`, scopes, path, { method: 'POST', headers: noBody }, [
    ...[201, 202, 400, 401, 403, 404, 405],
  ]).catch((error: unknown) => {
    // The token service may refuse a token for what we may not read.
    if (error instanceof HttpError) return undefined;
    throw error;
  });
  return answer?.status === 201;
}

// A registry may move a large blob to where it keeps it before it answers.
const commitMs = 5 * 60_000;

const noBody = { 'content-length': '0' } as const;

async function upload(
  { ask, call, findBase, options }: Client,
  repository: string,
  blob: PushedBlob,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { digest, size } = blob;
  const { onRetry, signal } = options;
  const scopes = [pushes(repository)];
  const what = `The blob ${digest}`;
  const path = `/v2/${pathOf(repository)}/blobs/uploads/`;
  const own = await findBase();
  const attempt = async (): Promise<void> => {
    const begun = await call(what, scopes, path, { method: 'POST', headers: noBody }, [202]);
    const place = placeOf(begun.header('location'), own + path);
    const url = `${place.href}${place.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`;
    let sent = 0;
    let failure: unknown;
    const chunks = (): AsyncIterable<Buffer> =>
      checked(blob, (bytes) => {
        sent += bytes;
        onBytes(bytes);
      });
    const headers = { 'content-type': 'application/octet-stream' };
    try {
      const request = (): HttpRequest => ({
        ...({ method: 'PUT', url, headers, answerMs: commitMs } as const),
        body: { size, chunks: watched(chunks()) },
      });
      required(await ask(scopes, request), [201]);
    } catch (error) {
      onBytes(-sent);
      throw asError(failure ?? error);
    }
    async function* watched(all: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
      try {
        yield* all;
      } catch (error) {
        failure = error;
        throw error;
      }
    }
  };
  await again('part', attempt, { what: () => what, onRetry, signal });
}

/** @param location where an upload goes on, perhaps without the host */
function placeOf(location: string, asked: string): URL {
  const url = URL.canParse(location, asked) ? new URL(location, asked) : undefined;
  const own = new URL(asked);
  // A registry behind a proxy that ends TLS may not know that it has TLS.
  if (url?.host === own.host) url.protocol = own.protocol;
  if (location !== '' && url !== undefined && (url.protocol === 'https:' || url.host === own.host)) return url;
  throw new HandoverError(
    'registry-failed',
    `The registry sends an upload to "${quoteForeign(location)}"; an address with https:// was expected.`,
    'Look at the configuration of the registry, or of the proxy before it.',
  );
}

const pieceBytes = 256 * 1024;

/** A blob's bytes, copied in pieces, of which the last is given out when all are known to be right. */
async function* checked({ digest, size, open }: PushedBlob, onBytes: (bytes: number) => void): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let [length, held] = [0, Buffer.alloc(0)];
  for await (const chunk of open()) {
    for (let at = 0; at < chunk.length; at += pieceBytes) {
      const piece = Buffer.from(viewOf(chunk.subarray(at, Math.min(at + pieceBytes, chunk.length))));
      hash.update(piece);
      length += piece.length;
      if (held.length > 0) yield held;
      onBytes(held.length);
      held = piece;
    }
  }
  const found: Digest = `sha256:${hash.digest('hex')}`;
  if (found !== digest || length !== size) throw otherBlob({ digest, size }, found, length);
  if (held.length > 0) yield held;
  onBytes(held.length);
}

function otherBlob(
  { digest, size }: Pick<PushedBlob, 'digest' | 'size'>,
  found: Digest,
  length: number,
): HandoverError {
  return new HandoverError(
    'artifact-corrupt',
    `A layer of the artifact has the digest ${found} and ${String(length)} bytes; its manifest says ${digest} and ${String(size)}.`,
    'Nothing was published. Run the job that exports the image again.',
  );
}
