import { formatPlatform } from '../shared/image/platform.ts';
import type { LoadResult } from './load-image.ts';

export function loadOutputs(result: LoadResult): Readonly<Record<string, string>> {
  return {
    image: result.reference,
    'image-id': result.image.imageId,
    'config-digest': result.expected.configDigest ?? '',
    platform: formatPlatform(result.expected.platform),
    'artifact-id': String(result.artifact?.id ?? ''),
    size: String(result.size),
    source: result.source,
    loaded: String(result.loaded),
  };
}
