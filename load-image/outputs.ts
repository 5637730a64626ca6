import { formatMapping } from './digests.ts';
import type { ImagesResult } from './load-images.ts';

/**
 * Returns the outputs. Those that describe one image are empty if several were loaded. Those that describe a load are empty if nothing was
 * loaded.
 * @param own the run of this job
 */
export function loadOutputs(
  { images, loaded }: ImagesResult,
  own: { readonly id: string; readonly url: string },
): Readonly<Record<string, string>> {
  const [image] = images.length === 1 ? images : [];
  const [result] = images.length === 1 ? loaded : [];
  const [first] = images;
  const run = first?.artifact === undefined ? { id: '', url: '' } : (first.artifact.run ?? own);
  return {
    image: result?.reference ?? '',
    'image-id': result?.image?.imageId ?? '',
    'config-digest': image?.configDigest ?? '',
    platform: image?.platform ?? '',
    'artifact-id': String(image?.artifact?.id ?? ''),
    'run-id': String(run.id),
    'run-url': run.url,
    size: String(loaded.reduce((sum, { size }) => sum + size, 0)),
    source: (loaded.find((each) => each.loaded) ?? loaded[0])?.source ?? '',
    loaded: String(loaded.some((each) => each.loaded)),
    images: formatMapping(images),
  };
}
