import { basename } from 'node:path';
import type { ImageContents } from '../shared/image/image-contents.ts';
import type { Producer, RecordedImage } from '../shared/image/record.ts';
import type { PinnedReference, TaggedReference } from '../shared/image/reference.ts';
import type { WrittenTarball } from '../shared/image/tarball-writer.ts';
import type { UnsealedRecord } from './handover-files.ts';

/** An image and the references it is handed over under. */
export interface TaggedImage {
  readonly image: ImageContents;
  readonly references: readonly TaggedReference[];
}

export interface PlannedHandover extends TaggedImage {
  readonly further: readonly TaggedImage[];
  readonly tarball: WrittenTarball;
  readonly path: string;
  readonly producer: Producer;
  readonly pushedReference?: PinnedReference | undefined;
}

/** The record of an image whose tarball has been written. */
export function imageRecord(planned: PlannedHandover): UnsealedRecord {
  const { image, further, tarball, path, producer, pushedReference } = planned;
  const { config } = image;
  return {
    ...recordedImage(planned),
    layers: image.layers.map(({ digest, size, mediaType }) => {
      const offset = tarball.layerOffsets.get(digest);
      return { digest, size, mediaType, ...(offset === undefined ? {} : { offset }) };
    }),
    ...(further.length === 0 ? {} : { further: further.map(recordedImage) }),
    ...(config.created === undefined ? {} : { created: config.created }),
    tarballName: basename(path),
    tarballSize: tarball.size,
    tarballCompression: 'none',
    producer,
    ...(pushedReference === undefined ? {} : { pushedReference }),
  };
}

function recordedImage({ image, references }: TaggedImage): RecordedImage {
  const { config, configDigest, manifestDigest } = image;
  const { platform, diffIds, labels } = config;
  return { references, platform, configDigest, manifestDigests: [manifestDigest], diffIds, labels };
}
