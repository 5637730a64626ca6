import type { Artifact, ArtifactReader } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/errors.ts';

/**
 * The newest artifact of that name in the store's run.
 * @param runAttempt which attempt of the run this is
 * @throws HandoverError `artifact-not-found` listing what is there
 */
export async function findArtifact(store: ArtifactReader, name: string, runAttempt: number): Promise<Artifact> {
  const artifacts = await store.list();
  const found = artifacts.find((artifact) => artifact.name === name);
  if (found !== undefined) return found;
  throw artifactNotFound([name], artifacts, runAttempt);
}

/**
 * What to say of names, or patterns, that stand for no artifact: it lists what is there.
 * @param runAttempt which attempt of the run this is
 */
export function artifactNotFound(
  wanted: readonly string[],
  artifacts: readonly Artifact[],
  runAttempt: number,
): HandoverError {
  const there = [...new Set(artifacts.map((artifact) => artifact.name))].map((other) => `"${other}"`);
  return new HandoverError(
    'artifact-not-found',
    `This run has no artifact ${wanted.map((name) => `"${name}"`).join(' and no ')}; it has ${there.length === 0 ? 'none' : there.slice(0, 30).join(', ')}.`,
    'Check `artifact-name`, and that this job has `needs:` the job that exports the image and that it uploaded it.' +
      (runAttempt > 1
        ? ` This is attempt ${String(runAttempt)}: the artifact of an earlier attempt may have expired. Re-run all jobs, or raise ` +
          '`retention-days` of export-image.'
        : ''),
  );
}
