import { isObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { isDigest } from '../image/digest.ts';
import { platformOf } from '../image/platform.ts';
import { registryOf } from '../image/reference.ts';
import { type EngineInfo, type InspectedImage, inspectedImage } from './output.ts';

// Reads what podman prints, where that differs from docker. Everything here is pure.

/** Reads `podman info --format json`; undefined when it isn't that. */
export function parsePodmanInfo(text: string): EngineInfo | undefined {
  const info = parseJson(text);
  if (!isObject(info) || !isObject(info['host'])) return undefined;
  const { host } = info;
  const version = isObject(info['version']) ? info['version'] : {};
  const store = isObject(info['store']) ? info['store'] : {};
  return {
    version: stringOr(version['Version'], ''),
    platform: platformOf(stringOr(host['os'], ''), stringOr(host['arch'], '')),
    imageStore: 'podman',
    dataRoot: stringOr(store['graphRoot'], ''),
    hostName: stringOr(host['hostname'], ''),
  };
}

/**
 * Reads `podman image inspect` of one image, a list of one; undefined when it isn't that. Podman leaves out the
 * `sha256:` of an ID.
 */
export function parsePodmanInspect(text: string): InspectedImage | undefined {
  const [image] = objectsOf(parseJson(text));
  if (image === undefined || typeof image['Id'] !== 'string') return undefined;
  const digest = `sha256:${image['Id']}`;
  return inspectedImage({ ...image, Id: isDigest(digest) ? digest : image['Id'] });
}

/**
 * A reference as podman lists it: one without a registry is under `localhost/` (what `podman tag` does with it).
 * An image ID stays as it is.
 */
export function podmanName(reference: string): string {
  return registryOf(reference) !== undefined || isDigest(reference) ? reference : `localhost/${reference}`;
}
