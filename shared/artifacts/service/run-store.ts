import { tempDirs } from '../../bytes/files.ts';
import type { Found } from '../../bytes/verified.ts';
import { maskedUrl, UnknownAnswer } from '../../http/twirp.ts';
import type { WorkflowHost } from '../../image/host.ts';
import { uploadBlob } from '../blob/blob-upload.ts';
import { openBlob } from '../blob/open-blob.ts';
import type { Artifact, ArtifactStore, StoreOptions, UploadRequest } from '../store.ts';
import { storedZip } from '../zip/zip-writer.ts';
import { withOfficialClient } from './official-store.ts';
import {
  claimOnGitea,
  connect,
  isClaim,
  lockName,
  type OwnStoreOptions,
  removeUnfinished,
  reserveName,
  type ServiceClient,
  transferFailed,
} from './reservation.ts';
import { type ListedArtifact, type ResultsService, serviceCredentials } from './results-service.ts';

interface RunStoreOptions extends StoreOptions {
  /** `ACTIONS_RUNTIME_TOKEN` and `ACTIONS_RESULTS_URL`, empty when not set. */
  readonly runtimeToken: string;
  readonly resultsUrl: string;
}

/** Returns the artifacts of this job's own run. Throws HandoverError `unsupported-host` outside a runner. */
export function runStore(options: RunStoreOptions): ArtifactStore {
  const own = { ...options, credentials: serviceCredentials(options.runtimeToken, options.resultsUrl, options.host) };
  return withOfficialClient(ownStore(own), own);
}

function ownStore(options: OwnStoreOptions): ArtifactStore {
  const { credentials, host, maskSecret } = options;
  const client = connect(options, options.signal);
  const { http, service } = client;
  const folders = tempDirs(options.tempRoot);
  const known = new Map<number, ListedArtifact>();
  const removed = new Set<number>();
  const listed = ({ id }: Artifact): ListedArtifact => {
    const found = known.get(id);
    if (found === undefined) throw new RangeError(`artifact ${String(id)} was not listed by this store`);
    return found;
  };
  return {
    list: async () => {
      const artifacts = await service.list().catch(explained(host, 'list the artifacts of this run'));
      for (const artifact of artifacts) known.set(artifact.id, artifact);
      return artifacts.filter(({ name }) => !isClaim(name));
    },
    open: async (artifact) => {
      const [what, found] = [`read the artifact "${artifact.name}"`, listed(artifact)];
      let isOpen = false;
      const sign = async (): Promise<string> => {
        try {
          return maskedUrl(await service.signDownload(found), maskSecret);
        } catch (error) {
          // The official client can't continue reading an artifact that is already open.
          throw error instanceof UnknownAnswer && !isOpen ? error : transferFailed(host, what, error);
        }
      };
      const partBytes = credentials.isGitea ? giteaPartBytes : undefined;
      const content = await openBlob({ ...options, http, artifact, sign, folders, partBytes });
      isOpen = true;
      return content;
    },
    upload: (request) => upload(client, { ...options, removed }, request),
    remove: async (artifact) => {
      const { id, name } = artifact;
      await service.remove(name, listed(artifact)).catch(explained(host, `delete the artifact "${name}"`));
      removed.add(id);
    },
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await folders[Symbol.asyncDispose]();
    },
  };
}

// For each part, Gitea reads the file from its start up to that part (modules/httplib/serve.go, ServeUserContentByReader).
const giteaPartBytes = 16 * 1024 * 1024;
const hourMs = 60 * 60 * 1000;
const dayMs = 24 * hourMs;

async function upload(
  { http, service }: ServiceClient,
  options: OwnStoreOptions & { readonly removed: ReadonlySet<number> },
  { name, retentionDays, files, onBytes }: UploadRequest,
): Promise<Artifact> {
  const { host, log, signal, figures, removed, credentials } = options;
  await using lock = await lockName(credentials, name);
  // Gitea counts the whole days until the expiry (createArtifact in routers/api/actions/artifactsv4.go).
  const lastMs = retentionDays * dayMs + (credentials.isGitea ? hourMs : 0);
  const expiresAt = retentionDays === 0 ? undefined : new Date(Date.now() + lastMs);
  await using claims = new AsyncDisposableStack();
  const notCreated = explained(host, `create the artifact "${name}"`);
  if (credentials.isGitea) claims.use(await claimOnGitea(name, removed, options, lock !== undefined).catch(notCreated));
  const url = await reserveName(name, expiresAt, options, lock !== undefined).catch(notCreated);
  try {
    const target = { http, url: maskedUrl(url, options.maskSecret), onRetry: log.info, signal, figures };
    const blob = await uploadBlob(target, storedZip(files), onBytes);
    const id = await service
      .finalize(name, blob.size, blob.digest)
      .catch((error: unknown) => listedId(service, name, blob, error));
    return { id, name, ...blob };
  } catch (error) {
    await removeUnfinished(name, options);
    throw transferFailed(host, `upload the artifact "${name}"`, error);
  }
}

/** Looks up an uploaded artifact's id in the service's list, after the answer to the end of its upload was lost or unknown. */
async function listedId(service: ResultsService, name: string, sent: Found, error: unknown): Promise<number> {
  const artifacts = await service.list(name).catch(() => []);
  const found = artifacts.find(
    (artifact) =>
      service.isOwn(artifact) &&
      artifact.size === sent.size &&
      // Gitea 1.26 lists no digests. It doesn't list an artifact during its upload, and compares the digest at the end.
      (artifact.digest ?? sent.digest) === sent.digest,
  );
  if (found === undefined) throw error;
  return found.id;
}

/** Returns a function that throws an error with its explanation, or an `UnknownAnswer` unchanged. */
function explained(host: WorkflowHost, what: string): (error: unknown) => never {
  return (error) => {
    throw error instanceof UnknownAnswer ? error : transferFailed(host, what, error);
  };
}
