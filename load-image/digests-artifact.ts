import { Readable } from 'node:stream';
import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/errors.ts';
import { isObject, parseJson } from '../shared/json.ts';
import { digestsFileName, formatMapping, type MappedImage } from './image-mapping.ts';
import type { DigestsPlan } from './images-plan.ts';

/** A name that the mapping may be uploaded under. */
export interface DigestsClaim {
  /** Uploads the mapping as the one file of its artifact, in place of the earlier one. */
  upload(images: readonly MappedImage[]): Promise<Artifact>;
}

/**
 * Looks, before any work, whether the name is free. An earlier attempt's mapping gives way when nothing in it is lost:
 * when each image that it names is named by the new one, too.
 * @param names what the new mapping will name
 * @throws HandoverError `artifact-name-taken`
 */
export async function claimDigests(
  store: ArtifactStore,
  { artifactName: name, retentionDays }: DigestsPlan,
  names: readonly string[],
): Promise<DigestsClaim> {
  const existing = (await store.list()).find((artifact) => artifact.name === name);
  const held = existing === undefined ? [] : await mappedNames(store, existing);
  if (held?.every((other) => names.includes(other)) !== true) throw taken(name, held);
  return {
    upload: async (images) => {
      const text = Buffer.from(`${formatMapping(images, 2)}\n`);
      if (existing !== undefined) await store.remove(name);
      const file = { name: digestsFileName, size: text.length, chunks: Readable.from([text]) };
      return store.upload({ name, retentionDays, files: Readable.from([file]), onBytes: () => undefined });
    },
  };
}

/** What the mapping in the artifact names; undefined when the artifact holds no mapping, or can't be read. */
async function mappedNames(store: ArtifactStore, artifact: Artifact): Promise<readonly string[] | undefined> {
  try {
    const content = await store.open(artifact);
    if (content.files.length !== 1) return undefined;
    const mapping = parseJson((await content.text(digestsFileName)) ?? '');
    return isObject(mapping) ? Object.keys(mapping) : undefined;
  } catch {
    return undefined;
  }
}

function taken(name: string, held: readonly string[] | undefined): HandoverError {
  const holds = held === undefined ? 'something else' : `the digests of ${held.slice(0, 20).join(', ')}`;
  return new HandoverError(
    'artifact-name-taken',
    `The artifact "${name}" exists in this run already, and holds ${holds}.`,
    'Give `digests-artifact` another name, one for each job that writes such a mapping.',
  );
}
