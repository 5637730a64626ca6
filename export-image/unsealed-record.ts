import { basename } from 'node:path';
import type { ImageContents } from '../shared/image/image-contents.ts';
import type { Producer } from '../shared/image/record.ts';
import type { PinnedReference, TaggedReference } from '../shared/image/reference.ts';
import type { TarballPlan } from '../shared/image/tarball-writer.ts';
import type { UnsealedRecord } from './handover-files.ts';

export interface RecordedImage {
  readonly image: ImageContents;
  readonly references: readonly TaggedReference[];
  readonly tarball: Pick<TarballPlan, 'size' | 'layerOffsets'>;
  readonly path: string;
  readonly producer: Producer;
  readonly pushedReference?: PinnedReference | undefined;
}

/** The record of an image whose tarball is planned. */
export function imageRecord({ image, references, tarball, path, producer, ...pushed }: RecordedImage): UnsealedRecord {
  const { config } = image;
  return {
    references,
    platform: config.platform,
    configDigest: image.configDigest,
    manifestDigests: [image.manifestDigest],
    diffIds: config.diffIds,
    layers: image.layers.map(({ digest, size, mediaType }) => {
      const offset = tarball.layerOffsets.get(digest);
      return { digest, size, mediaType, ...(offset === undefined ? {} : { offset }) };
    }),
    labels: config.labels,
    ...(config.created === undefined ? {} : { created: config.created }),
    tarballName: basename(path),
    tarballSize: tarball.size,
    tarballCompression: 'none',
    producer,
    ...(pushed.pushedReference === undefined ? {} : { pushedReference: pushed.pushedReference }),
  };
}
