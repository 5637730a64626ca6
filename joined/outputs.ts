import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { JoinedResult } from './joined.ts';

export function joinedOutputs(result: JoinedResult): Readonly<Record<string, string>> {
  const { loaded } = result;
  const push = result.kind === 'loaded' ? undefined : result.exported.push;
  return {
    source: result.kind === 'loaded' ? 'artifact' : 'build',
    image: loaded.reference,
    'image-id': loaded.image?.imageId ?? '',
    'config-digest': loaded.identity.configDigest ?? '',
    platform: formatPlatform(loaded.identity.platform),
    'artifact-name': loaded.artifact?.name ?? '',
    'artifact-id': String(loaded.artifact?.id ?? ''),
    'pushed-reference': push?.kind === 'pushed' ? formatReference(push.reference) : '',
    loaded: String(loaded.loaded),
  };
}
