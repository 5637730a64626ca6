import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { JoinedResult } from './joined.ts';

export function joinedOutputs({ loaded, exported }: JoinedResult): Readonly<Record<string, string>> {
  const pushed = exported?.push.kind === 'pushed' ? exported.push.reference : undefined;
  return {
    source: exported === undefined ? 'artifact' : 'build',
    image: loaded.reference,
    'image-id': loaded.image?.imageId ?? '',
    'config-digest': loaded.identity.configDigest ?? '',
    platform: formatPlatform(loaded.identity.platform),
    'artifact-name': loaded.artifact?.name ?? '',
    'artifact-id': String(loaded.artifact?.id ?? ''),
    // Same names as in docker/build-push-action.
    digest: pushed?.digest ?? loaded.identity.manifestDigest ?? '',
    imageid: loaded.identity.configDigest ?? '',
    'pushed-reference': pushed === undefined ? '' : formatReference(pushed),
    loaded: String(loaded.loaded),
  };
}
