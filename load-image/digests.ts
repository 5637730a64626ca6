import { Readable } from 'node:stream';
import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, isUnreadable } from '../shared/base/errors.ts';
import { isObject, parseJson } from '../shared/base/json.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import type { LoadResult } from './result.ts';
import { digestsFileName } from '../shared/handed-over/find.ts';
import type { DigestsPlan } from './plan/images-plan.ts';
import type { Identity } from '../shared/handed-over/identity.ts';

/** What later jobs need to know of one image. */
export interface MappedImage {
  /** What it is listed under: the artifact's name, or the reference when the artifact holds several images. */
  readonly name: string;
  /** Undefined when the image came from a registry. */
  readonly artifact: Artifact | undefined;
  readonly reference: string;
  readonly configDigest: string;
  /** Empty where it isn't known. */
  readonly manifestDigest: string;
  /** Where the image was pushed to, by digest; empty when it wasn't. */
  readonly pushedReference: string;
  readonly platform: string;
  /** Bytes of the artifact; 0 without one. */
  readonly size: number;
}

/** @param name the artifact's, or what stands for it */
export function mappedLoad(name: string, result: LoadResult): readonly MappedImage[] {
  const { artifact, record, reference, identity, further } = result;
  return listed(name, artifact, record, [{ reference, identity }, ...further]);
}

/** What is known of an artifact's images that are not loaded. */
export function mappedImages(
  artifact: Artifact,
  record: HandoverRecord | undefined,
  images: readonly { readonly identity: Identity; readonly references: readonly Reference[] }[],
): readonly MappedImage[] {
  const named = images.map(({ identity, references }) => ({
    identity,
    reference: references.map(formatReference)[0] ?? '',
  }));
  return listed(artifact.name, artifact, record, named);
}

function listed(
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

/** The mapping as JSON: name → reference, digests, platform and size in bytes; sorted by name. */
export function formatMapping(images: readonly MappedImage[], indent?: number): string {
  const entries = images.map(
    (image) =>
      [
        image.name,
        {
          reference: image.reference,
          'config-digest': image.configDigest,
          'manifest-digest': image.manifestDigest,
          'pushed-reference': image.pushedReference,
          platform: image.platform,
          size: image.size,
        },
      ] as const,
  );
  const sorted = entries.sort(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify(Object.fromEntries(sorted), undefined, indent);
}

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
  { artifactName: name }: DigestsPlan,
  names: readonly string[],
): Promise<DigestsClaim> {
  const existing = (await store.list()).find((artifact) => artifact.name === name);
  const held = existing === undefined ? [] : await mappedNames(store, existing);
  if (held?.every((other) => names.includes(other)) !== true) throw taken(name, held);
  return {
    upload: async (images) => {
      const text = Buffer.from(`${formatMapping(images, 2)}\n`);
      if (existing !== undefined) await store.remove(existing);
      const file = { name: digestsFileName, size: text.length, chunks: Readable.from([text]) };
      return store.upload({ name, retentionDays: 0, files: Readable.from([file]), onBytes: () => undefined });
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
  } catch (error) {
    if (!isUnreadable(error)) throw error;
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
