import type { Artifact } from '../shared/artifacts/store.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { LoadResult } from './load-image.ts';
import type { ExpectedImage } from './verify.ts';

/** The file that holds the mapping in its artifact. */
export const digestsFileName = 'docker-image-digests.json';

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
  const { artifact, record, reference, expected, further } = result;
  const first = mapped(name, artifact, reference, expected, record);
  if (further.length === 0) return [first];
  const others = further.map((other) => mapped(name, artifact, other.reference, other.expected, undefined));
  return [first, ...others].map((image) => ({ ...image, name: image.reference }));
}

/** What is known of an artifact's images from its record alone. */
export function mappedRecord(artifact: Artifact, record: HandoverRecord): readonly MappedImage[] {
  const images = [record, ...(record.further ?? [])].map((image, position) => {
    const reference = image.references.map(formatReference)[0] ?? '';
    return mapped(artifact.name, artifact, reference, image, position === 0 ? record : undefined);
  });
  return images.length === 1 ? images : images.map((image) => ({ ...image, name: image.reference }));
}

function mapped(
  name: string,
  artifact: Artifact | undefined,
  reference: string,
  image: ExpectedImage,
  record: HandoverRecord | undefined,
): MappedImage {
  return {
    name,
    artifact,
    reference,
    configDigest: image.configDigest ?? '',
    manifestDigest: image.manifestDigests[0] ?? '',
    pushedReference: record?.pushedReference === undefined ? '' : formatReference(record.pushedReference),
    platform: formatPlatform(image.platform),
    size: artifact?.size ?? 0,
  };
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
