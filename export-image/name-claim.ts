import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, isUnreadable } from '../shared/base/errors.ts';
import { quoteForeign } from '../shared/base/text.ts';
import { readRecord } from '../shared/handed-over/find.ts';
import type { Producer } from '../shared/image/record.ts';

export interface NameClaim {
  /** Removes the artifact of an earlier attempt of this job; called just before the upload. */
  release(): Promise<void>;
}

/**
 * Checks, before any work, that the name is free or was used by an earlier attempt of this job.
 * @throws HandoverError `artifact-name-taken` when another job of this run uses it
 */
export async function claimName(store: ArtifactStore, name: string, producer: Producer): Promise<NameClaim> {
  const existing = (await store.list()).find((artifact) => artifact.name === name);
  if (existing === undefined) return { release: () => Promise.resolve() };
  const owner = await ownerOf(store, existing);
  if (owner?.jobKey === producer.jobKey && owner.runAttempt < producer.runAttempt) {
    return { release: () => store.remove(existing) };
  }
  throw nameTaken(existing, owner, producer);
}

function nameTaken({ id, name }: Artifact, owner: Producer | undefined, producer: Producer): HandoverError {
  const { by, hint } = describeOwner(name, owner, producer);
  return new HandoverError(
    'artifact-name-taken',
    `The artifact "${name}" (id ${String(id)}) exists in this run already, uploaded by ${by}; this is job ` +
      `${producer.jobKey} in attempt ${String(producer.runAttempt)}.`,
    hint,
  );
}

function describeOwner(
  name: string,
  owner: Producer | undefined,
  producer: Producer,
): { readonly by: string; readonly hint: string } {
  const sameInLoad = 'Give load-image the same name.';
  const job = quoteForeign(owner?.jobKey ?? '', 100);
  if (owner === undefined) {
    return {
      by: 'a step that is not export-image',
      hint: `Give each export and each upload of a run its own name. ${sameInLoad}`,
    };
  }
  if (owner.jobKey !== producer.jobKey) {
    const varied = `\`artifact-name: ${name}-\${{ matrix.component }}\``;
    return {
      by: `job ${job} in attempt ${String(owner.runAttempt)}`,
      hint: `Give each job its own name. In a matrix, add what varies: ${varied}. ${sameInLoad}`,
    };
  }
  return {
    by: `${job} in this same attempt: by an earlier step of this job, or by a called workflow's job of the same id`,
    hint:
      'In one job, give each step an `artifact-name` of its own (and a `tarball`). Of called workflows, give each its name ' +
      `as an input. ${sameInLoad}`,
  };
}

async function ownerOf(store: ArtifactStore, artifact: Artifact): Promise<Producer | undefined> {
  try {
    return (await readRecord(await store.open(artifact)))?.producer;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    // export-image didn't make it, so it isn't of an earlier attempt of this job.
    return undefined;
  }
}
