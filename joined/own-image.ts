import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { messageOf } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import type { Digest } from '../shared/image/digest.ts';
import { readRecord } from '../shared/handed-over/find.ts';
import { type HandoverRecord, recordName } from '../shared/image/record.ts';
import { formatReference } from '../shared/image/reference.ts';

// For a job that used the artifact's name second: its image is kept in this job, loaded from its own tarball, and compared with the
// image that later jobs get.

/** The image in the artifact of that name, compared with the image that this job built. */
export type OtherImage =
  | { readonly kind: 'same' | 'different'; readonly artifact: Artifact; readonly configDigest: Digest }
  | { readonly kind: 'unknown'; readonly why: string };

/**
 * Compares the image that another job hands over under the name with the one that this job built. Later jobs get the other job's.
 * Doesn't wait for that job. An error is only logged, because this job has its image.
 */
export async function compareWithOther(
  { store, log }: { readonly store: ArtifactStore; readonly log: Log },
  name: string,
  own: HandoverRecord,
): Promise<OtherImage> {
  const other = await readOther(store, name, own).catch((error: unknown) => unknown(messageOf(error)));
  const image = own.references.map(formatReference)[0] ?? '';
  if (other.kind === 'unknown') {
    log.info(`It is unknown whether the artifact "${name}" holds the same image as ${image} here: ${other.why}`);
  } else if (other.kind === 'same') {
    log.info(
      `It is the same image as in the artifact "${name}" (id ${String(other.artifact.id)}), which another job handed over.`,
    );
  } else {
    log.warning(
      `${image} in this job is not the image that later jobs get: this job has ${own.configDigest}, and the artifact ` +
        `"${name}" (id ${String(other.artifact.id)}) of another job holds ${other.configDigest}. Two builds of one definition ` +
        'differ unless every step comes from a shared cache. To test one image everywhere, build it in one job, and give ' +
        'the others `needs:` that job.',
    );
  }
  return other;
}

async function readOther(store: ArtifactStore, name: string, own: HandoverRecord): Promise<OtherImage> {
  const artifact = (await store.list()).find((candidate) => candidate.name === name);
  if (artifact === undefined) return unknown('the other job has not finished its upload.');
  const record = await readRecord(await store.open(artifact));
  if (record === undefined) return unknown(`it has no ${recordName}.`);
  const { configDigest } = record;
  return { kind: configDigest === own.configDigest ? 'same' : 'different', artifact, configDigest };
}

function unknown(why: string): OtherImage {
  return { kind: 'unknown', why };
}
