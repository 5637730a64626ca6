import { formatMapping } from './image-mapping.ts';
import type { ImagesResult } from './load-images.ts';

/** What can be said of one image only is empty when there are several; what a load tells is empty without one. */
export function loadOutputs({ images, loaded }: ImagesResult): Readonly<Record<string, string>> {
  const [image] = images.length === 1 ? images : [];
  const [result] = images.length === 1 ? loaded : [];
  return {
    image: result?.reference ?? '',
    'image-id': result?.image.imageId ?? '',
    'config-digest': image?.configDigest ?? '',
    platform: image?.platform ?? '',
    'artifact-id': String(image?.artifactId ?? ''),
    size: String(loaded.reduce((sum, { size }) => sum + size, 0)),
    loaded: String(loaded.some((each) => each.loaded)),
    images: formatMapping(images),
  };
}
