import { formatPlatform } from '../shared/image/platform.ts';
import type { PulledResult } from './fallback-image.ts';
import type { LoadResult } from './load-image.ts';

/** This job's own run. */
export interface OwnRun {
  readonly id: string;
  readonly url: string;
}

export function loadOutputs(result: LoadResult | PulledResult, own: OwnRun): Readonly<Record<string, string>> {
  const pulled = 'pulledFrom' in result;
  const run = pulled ? { id: '', url: '' } : (result.artifact.run ?? own);
  return {
    image: result.reference,
    'image-id': result.image.imageId,
    'config-digest': (pulled ? result.configDigest : result.expected.configDigest) ?? '',
    platform: formatPlatform(pulled ? result.image.platform : result.expected.platform),
    'artifact-id': pulled ? '' : String(result.artifact.id),
    'run-id': String(run.id),
    'run-url': run.url,
    size: pulled ? '' : String(result.size),
    loaded: String(pulled || result.loaded),
  };
}
