import { Readable } from 'node:stream';
import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, isUnreadable } from '../shared/base/errors.ts';
import { isObject, parseJson } from '../shared/base/json.ts';
import type { Log } from '../shared/base/log.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import { formatReference } from '../shared/image/reference.ts';
import { digestsFileName } from '../shared/handed-over/find.ts';
import type { Identity } from '../shared/handed-over/identity.ts';

/** The digests of one image, for later jobs. */
export interface MappedImage {
  /** The artifact's name, or the reference when the artifact contains several images. */
  readonly name: string;
  /** Undefined for an image from a registry. */
  readonly artifact: Artifact | undefined;
  readonly reference: string;
  readonly configDigest: string;
  /** Empty when unknown. */
  readonly manifestDigest: string;
  /** The pushed reference with its digest; empty when the image wasn't pushed. */
  readonly pushedReference: string;
  readonly platform: string;
  /** Size of the artifact in bytes; 0 without an artifact. */
  readonly size: number;
}

/**
 * Returns the digests of an artifact's images.
 * @param name the artifact's name, or the reference if there is no artifact
 */
export function mappedImages(
  name: string,
  artifact: Artifact | undefined,
  record: HandoverRecord | undefined,
  images: readonly { readonly identity: Identity; readonly reference: string }[],
): readonly MappedImage[] {
  return images.map(({ identity, reference }, position) => ({
    name: images.length === 1 ? name : reference,
    artifact,
    reference,
    configDigest: identity.configDigest ?? '',
    manifestDigest: identity.manifestDigest ?? '',
    pushedReference:
      position > 0 || record?.pushedReference === undefined ? '' : formatReference(record.pushedReference),
    platform: formatPlatform(identity.platform),
    size: artifact?.size ?? 0,
  }));
}

/** Returns the mapping as JSON: name → reference, digests, platform and size in bytes; sorted by name. */
export function formatMapping(images: readonly MappedImage[], indent?: number): string {
  const sorted = images.toSorted((one, other) => (one.name < other.name ? -1 : 1));
  const entries = sorted.map(({ name, reference, configDigest, manifestDigest, pushedReference, platform, size }) => {
    const digests = { 'config-digest': configDigest, 'manifest-digest': manifestDigest };
    return [name, { reference, ...digests, 'pushed-reference': pushedReference, platform, size }] as const;
  });
  return JSON.stringify(Object.fromEntries(entries), undefined, indent);
}

/**
 * Runs `work`, and uploads the mapping of its images as the only file of an artifact. Checks first that the name is free. An earlier
 * attempt's mapping is replaced if the new mapping has all of its images.
 * @param name the artifact's name; if undefined, nothing is uploaded
 * @param names the names of the images in the new mapping
 * @throws HandoverError `artifact-name-taken`
 */
export async function withDigests<Result extends { readonly images: readonly MappedImage[] }>(
  name: string | undefined,
  names: readonly string[],
  { ownStore, log }: { readonly ownStore: () => ArtifactStore; readonly log: Log },
  work: () => Promise<Result>,
): Promise<Result & { readonly digests: Artifact | undefined }> {
  if (name === undefined) return { ...(await work()), digests: undefined };
  await using store = ownStore();
  const existing = (await store.list()).find((artifact) => artifact.name === name);
  const held = existing === undefined ? [] : await mappedNames(store, existing);
  if (held?.every((other) => names.includes(other)) !== true) {
    const contents = held === undefined ? 'something else' : `the digests of ${held.slice(0, 20).join(', ')}`;
    throw new HandoverError(
      'artifact-name-taken',
      `The artifact "${name}" already exists in this run, and contains ${contents}.`,
      'Give `digests-artifact` another name, one for each job that writes such a mapping.',
    );
  }
  const result = await work();
  const text = Buffer.from(`${formatMapping(result.images, 2)}\n`);
  if (existing !== undefined) await store.remove(existing);
  const file = { name: digestsFileName, size: text.length, chunks: Readable.from([text]) };
  const digests = await store.upload({
    name,
    retentionDays: 0,
    files: Readable.from([file]),
    onBytes: () => undefined,
  });
  log.info(`Uploaded the digests as the artifact "${digests.name}" (id ${String(digests.id)})`);
  return { ...result, digests };
}

/** Returns the names in the artifact's mapping; undefined when the artifact contains no mapping, or can't be read. */
async function mappedNames(store: ArtifactStore, artifact: Artifact): Promise<readonly string[] | undefined> {
  try {
    const content = await store.open(artifact);
    if (content.files.length !== 1) return undefined;
    const mapping = parseJson((await content.text(digestsFileName)) ?? '');
    return isObject(mapping) ? Object.keys(mapping) : undefined;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return undefined;
  }
}
