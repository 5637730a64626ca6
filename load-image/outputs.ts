import { formatPlatform } from '../shared/image/platform.ts';
import type { LoadResult } from './load-image.ts';

/** This job's own run. */
export interface OwnRun {
  readonly id: string;
  readonly url: string;
}

export function loadOutputs(result: LoadResult, own: OwnRun): Readonly<Record<string, string>> {
  const { artifact } = result;
  const run = artifact === undefined ? { id: '', url: '' } : (artifact.run ?? own);
  return {
    image: result.reference,
    'image-id': result.image.imageId,
    'config-digest': result.expected.configDigest ?? '',
    platform: formatPlatform(result.expected.platform),
    'artifact-id': String(artifact?.id ?? ''),
    'run-id': String(run.id),
    'run-url': run.url,
    size: String(result.size),
    source: result.source,
    loaded: String(result.loaded),
  };
}
