import { HandoverError, messageOf } from '../../base/errors.ts';
import { tempDirs } from '../../bytes/files.ts';
import { hasStatus } from '../../http/answer.ts';
import { httpClient } from '../../http/client.ts';
import { maskedUrl } from '../../http/twirp.ts';
import { retryHint } from '../../image/host.ts';
import { openBlob } from '../blob/open-blob.ts';
import type { Artifact, ArtifactReader, StoreOptions } from '../store.ts';
import { artifactExpired, chooseRun, type ChosenRun, describeSearch, type RunSearch } from './other-run.ts';
import { isRefusal, type RestOptions, type WorkflowRuns, workflowRuns } from './workflow-runs.ts';

interface OtherRunOptions extends StoreOptions, Pick<RestOptions, 'apiUrl' | 'token'> {
  readonly search: RunSearch;
}

/** Returns the artifacts of another workflow run, in this or another repository, through the REST API. */
export function otherRunStore(options: OtherRunOptions): ArtifactReader {
  const { search, log, maskSecret } = options;
  const folders = tempDirs(options.tempRoot);
  const http = httpClient(options.proxies, options.signal);
  const runs = workflowRuns({ ...options, ...search, http, onRetry: log.info });
  let chosen: Promise<ChosenRun> | undefined;
  return {
    list: async () => {
      chosen ??= chooseRun(runs, search, log.info).catch(explained('find the run', options));
      const { run, artifacts } = await chosen;
      log.info(`Using run ${String(run.id)} of ${run.createdAt}: ${run.url}`);
      const link = { id: run.id, url: run.url };
      return artifacts.map((artifact) => ({ ...artifact, run: link }));
    },
    open: async (artifact) => {
      const sign = async (): Promise<string> =>
        maskedUrl(await signDownload(runs, artifact).catch(explained('read the artifact', options)), maskSecret);
      return openBlob({ ...options, http, artifact, sign, folders });
    },
    [Symbol.asyncDispose]: async () => {
      await http.close();
      await folders[Symbol.asyncDispose]();
    },
  };
}

// The artifact may have expired after it was listed; then the download answers 410.
async function signDownload(runs: WorkflowRuns, { name, id, run }: Artifact): Promise<string> {
  try {
    return await runs.signDownload(id);
  } catch (error) {
    if (!hasStatus(error, 404, 410)) throw error;
    const what = `The artifact "${name}" (id ${String(id)})`;
    throw artifactExpired(`${what} has expired or was deleted: ${error.message} (${run?.url ?? ''}).`, error);
  }
}

/** Returns a function that throws an error with its explanation. */
function explained(what: string, { search, host, signal }: OtherRunOptions): (error: unknown) => never {
  return (error) => {
    if (error instanceof HandoverError || signal.aborted) throw error;
    const wanted = describeSearch(search);
    if (hasStatus(error, 404))
      throw new HandoverError(
        'run-not-found',
        `Could not find ${wanted}: ${error.message}.`,
        `Check \`${'runId' in search.choice ? 'run-id' : 'workflow'}\` and \`repository\`. A private repository gives the same answer when ` +
          'the token can’t read it: the job needs `permissions: actions: read`, and another repository a `github-token` ' +
          'that can read its actions.',
        error,
      );
    throw new HandoverError(
      'transfer-failed',
      `Could not ${what} (${wanted}): ${messageOf(error)}.`,
      isRefusal(error)
        ? 'Give the job `permissions: actions: read`; for another repository pass a `github-token` that may read its actions, ' +
            'and check that it has not expired.'
        : retryHint(host),
      error,
    );
  };
}
