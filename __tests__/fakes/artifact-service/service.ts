import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serveBlob } from './blob-server.ts';
import { type BlobStore, blobStore } from './blobs.ts';
import { type CacheEntry, cachePath, serveCacheService } from './cache-service.ts';
import { serveControlPlane, type StoredArtifact } from './control-plane.ts';
import { type Faults, faults as makeFaults } from './faults.ts';
import { link, type LinkOptions } from './link.ts';
import { type RestApi, restApi, restPath, seededArtifacts, type SeededRun, serveRest } from './rest.ts';
import { urlSigner } from './signed-url.ts';
import { type Certificate, makeCertificate } from './tls.ts';
import { type CacheAccess, type JobIdentity, tokenMint } from './token.ts';

export interface ServiceOptions {
  readonly tls?: boolean;
  readonly link?: LinkOptions;
  /** Lifetime of a signed URL in ms. */
  readonly signedUrlLifetimeMs?: number;
  /** Responds to range requests with the whole blob, as HTTP allows (RFC 9110 section 14.2). */
  readonly ignoresRanges?: boolean;
}

export interface Job {
  readonly runId?: string;
  readonly jobId?: string;
  readonly attempt?: number;
  /** Access of the job's token to the Actions cache. Default: `write`. */
  readonly cache?: CacheAccess;
}

/**
 * A fake of the artifact and cache services: their control plane, a block-blob store behind signed URLs, and the part of
 * the REST API for other runs.
 */
export interface ArtifactService {
  readonly url: string;
  /** Returns the environment that the runner sets for the job's actions. */
  env(job?: Job): Readonly<Record<string, string>>;
  readonly artifacts: readonly StoredArtifact[];
  /** Entries of the Actions cache. */
  readonly cacheEntries: readonly CacheEntry[];
  readonly blobs: BlobStore;
  readonly faults: Faults;
  /** Bytes transferred by the blob server. */
  readonly traffic: { down: number; up: number };
  /** Blob requests with their ranges. */
  readonly ranges: string[];
  readonly rest: RestApi;
  /** Adds a run to the REST API. Uploads of jobs with that `runId` become its artifacts. */
  addRun(run: SeededRun): void;
  /** Returns a URL that reads a blob. */
  signDownload(blob: string): string;
  /** Expires all artifacts with that name, in all runs or in one. */
  expire(name: string, runId?: string): void;
  close(): Promise<void>;
}

export async function startArtifactService(options: ServiceOptions = {}): Promise<ArtifactService> {
  const directory = await mkdtemp(join(tmpdir(), 'artifact-service-'));
  const certificate = options.tls === true ? makeCertificate(directory) : undefined;
  const traffic = { down: 0, up: 0 };
  const ranges: string[] = [];
  const artifacts: StoredArtifact[] = [];
  const shared = { blobs: blobStore(directory), signer: urlSigner(), faults: makeFaults() };
  const tokens = tokenMint();
  let url = '';
  const control = {
    ...shared,
    artifacts,
    tokens,
    lifetimeMs: options.signedUrlLifetimeMs ?? 600_000,
    blobOrigin: () => url,
  };
  const slow = link(options.link ?? {});
  const cache = { ...control, link: slow, entries: [] };
  const rest = restApi(() => url);
  const restParts = {
    ...shared,
    api: rest,
    artifacts,
    lifetimeMs: control.lifetimeMs,
    origin: () => url,
  };
  const onTraffic = (operation: string, bytes: number, range: string): void => {
    traffic[operation === 'get' ? 'down' : 'up'] += bytes;
    if (range !== '' && ranges.at(-1) !== range) ranges.push(range);
  };
  const blobParts = {
    ...shared,
    link: slow,
    ignoresRanges: options.ignoresRanges === true,
    onTraffic,
  };
  const server = listener(certificate, (request, response) => {
    const work =
      request.url?.startsWith(cachePath) === true
        ? serveCacheService(cache, request, response)
        : request.url?.startsWith('/twirp/') === true
          ? serveControlPlane(control, request, response)
          : request.url?.startsWith(`${restPath}/`) === true
            ? serveRest(restParts, request, response)
            : serveBlob(blobParts, request, response);
    // A client that disconnects ends only its own request.
    work.catch(() => {
      response.destroy();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  url = `${certificate === undefined ? 'http' : 'https'}://127.0.0.1:${String(port)}`;
  return {
    url,
    env: (job = {}) => environment(url, tokens.issue(identity(job), job.cache), job, certificate),
    artifacts,
    cacheEntries: cache.entries,
    blobs: shared.blobs,
    faults: shared.faults,
    traffic,
    ranges,
    rest,
    addRun: (run) => {
      rest.runs.push(run);
      artifacts.push(...seededArtifacts(run, identity({ runId: String(run.id) }), 1000 + artifacts.length));
    },
    signDownload: (blob) => shared.signer.sign(url, blob, 'r', control.lifetimeMs, 'a.zip'),
    expire: (name, runId) => {
      const isOfRun = (job: JobIdentity): boolean => runId === undefined || job.runId === runId;
      for (const artifact of artifacts.filter((item) => item.name === name && isOfRun(item.job)))
        Object.assign(artifact, { expiresAt: new Date(0).toISOString() });
    },
    close: async () => {
      server.closeAllConnections();
      server.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function listener(
  certificate: Certificate | undefined,
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  return certificate === undefined
    ? createServer(handler)
    : createTlsServer({ key: certificate.key, cert: certificate.cert }, handler);
}

function identity({ runId = '1', jobId = 'build', attempt = 1 }: Job): JobIdentity {
  return {
    runId,
    runBackendId: uuid(`run ${runId} ${String(attempt)}`),
    jobBackendId: uuid(`job ${runId} ${jobId} ${String(attempt)}`),
  };
}

function uuid(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join('-');
}

function environment(
  url: string,
  token: string,
  job: Job,
  certificate: Certificate | undefined,
): Readonly<Record<string, string>> {
  return {
    ACTIONS_RUNTIME_TOKEN: token,
    ACTIONS_RESULTS_URL: `${url}/`,
    GITHUB_RUN_ID: job.runId ?? '1',
    GITHUB_RUN_ATTEMPT: String(job.attempt ?? 1),
    GITHUB_JOB: job.jobId ?? 'build',
    GITHUB_REPOSITORY: 'org/charon',
    GITHUB_API_URL: `${url}${restPath}`,
    GITHUB_SERVER_URL: 'https://github.com',
    GITHUB_SHA: '0123456789abcdef0123456789abcdef01234567',
    GITHUB_EVENT_NAME: '',
    GITHUB_EVENT_PATH: '',
    ...(certificate === undefined ? {} : { NODE_EXTRA_CA_CERTS: certificate.caFile }),
  };
}
