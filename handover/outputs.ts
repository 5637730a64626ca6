import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { HandoverResult } from './handover.ts';

export function handoverOutputs({ source, loaded, exported }: HandoverResult): Readonly<Record<string, string>> {
  return {
    source,
    image: loaded.reference,
    'image-id': loaded.image.imageId,
    'config-digest': loaded.expected.configDigest ?? '',
    platform: formatPlatform(loaded.expected.platform),
    'artifact-name': loaded.artifact?.name ?? '',
    'artifact-id': String(loaded.artifact?.id ?? ''),
    'pushed-reference': exported?.push.kind === 'pushed' ? formatReference(exported.push.reference) : '',
    loaded: String(loaded.loaded),
  };
}
