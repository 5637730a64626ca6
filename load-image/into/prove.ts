import { HandoverError } from '../../shared/base/errors.ts';
import { isObject, type JsonObject } from '../../shared/base/json.ts';
import type { Log } from '../../shared/base/log.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../../shared/docker/output.ts';
import type { TagGuard } from '../../shared/docker/tag-guard.ts';
import type { Identity } from '../../shared/handed-over/identity.ts';
import type { ResolvedImage } from '../../shared/handed-over/opened-artifact.ts';
import type { Digest } from '../../shared/image/digest.ts';
import type { ImageStore } from '../../shared/image/image-store.ts';
import { formatPlatform, samePlatform } from '../../shared/image/platform.ts';
import { formatReference, type Reference } from '../../shared/image/reference.ts';

// Proves that the engine's image is the one that was handed over: compares it with the identity that was computed from the artifact's
// bytes. No other value is accepted.

/** A holder's engine, and facts about it. */
export interface HolderTools {
  readonly engine: Engine;
  readonly log: Log;
  readonly info: EngineInfo;
}

/**
 * Finds the image in the engine, under one of the references or any other name.
 * @returns a reference or an image ID; undefined if the engine lacks the image
 */
export async function findImage(
  { engine, info }: Omit<HolderTools, 'log'>,
  identity: Identity,
  references: readonly Reference[],
): Promise<string | undefined> {
  const imageId = imageIdOf(identity, info.imageStore);
  const names = [...references.map(formatReference), ...(imageId === undefined ? [] : [imageId])];
  for (const name of names) {
    const found = await engine.inspect(name);
    if (found !== undefined && differences(identity, found, info.imageStore).length === 0) return name;
  }
  return undefined;
}

/** An image, and the references that it will have. */
export type HeldImage = Pick<ResolvedImage, 'identity' | 'references'>;

interface NamingRequest extends HeldImage {
  readonly name: string;
  /** The current images of the references that were already inspected. */
  readonly inspected?: ReadonlyMap<string, InspectedImage | undefined>;
}

/**
 * Proves that the engine has the image under this name, and only then sets its references. Each reference is verified again, with the
 * engine's own command.
 * @param what a description of the image for the log: `the image that was handed over`
 * @param guard restores the earlier references after an error
 * @returns the image under its first reference
 * @throws HandoverError `image-missing`, `image-mismatch`
 */
export async function proveAndName(
  { engine, log, info }: HolderTools,
  { name, identity, references, inspected }: NamingRequest,
  what: string,
  guard: TagGuard,
): Promise<InspectedImage> {
  const names = references.map(formatReference);
  const [first = name, ...others] = names;
  const image = await inspect(engine, name);
  requireSameImage(first, identity, image, info.imageStore);
  const named: InspectedImage[] = [];
  for (const reference of names) {
    const isKnown = inspected?.has(reference) === true;
    const before = reference === name ? image : isKnown ? inspected.get(reference) : await engine.inspect(reference);
    const hasIt = before !== undefined && differences(identity, before, info.imageStore).length === 0;
    const found = hasIt ? before : await guard.tag(name, reference, { imageId: image.imageId, before });
    if (found === undefined) throw missing(engine, reference);
    requireSameImage(reference, identity, found, info.imageStore);
    named.push(found);
  }
  // `confirm` is undefined if `inspect` already uses the engine's own command.
  const confirmed = await engine.confirm?.(names);
  confirmed?.forEach((found, at) => requireSameImage(names[at] ?? name, identity, found, info.imageStore));
  const [last = image] = confirmed ?? named;
  log.info(`Verified: ${first} is ${what} (${last.imageId})`);
  for (const reference of others) log.info(`Also tagged ${reference}.`);
  return last;
}

/**
 * Verifies again that each of the images has all of its references.
 * @throws HandoverError `image-missing`, `image-mismatch`
 */
export async function requireNames(
  { engine, info }: Omit<HolderTools, 'log'>,
  images: readonly HeldImage[],
): Promise<void> {
  for (const { identity, references } of images)
    for (const name of references.map(formatReference))
      requireSameImage(name, identity, await inspect(engine, name), info.imageStore);
}

async function inspect(engine: Engine, name: string): Promise<InspectedImage> {
  const image = await engine.inspect(name);
  if (image !== undefined) return image;
  throw missing(engine, name);
}

function missing(engine: Engine, name: string): HandoverError {
  return new HandoverError(
    'image-missing',
    `${engine.program} succeeded, but \`${engine.program} image inspect ${name}\` finds no image.`,
    `Check the engine: ${engine.program} image ls; ${engine.program} ${engine.program === 'ctr' ? 'version' : 'info'}.`,
  );
}

/**
 * Returns the image's ID in an engine: the config digest, or the manifest digest in a containerd store.
 * @returns undefined if it is unpredictable: a containerd store generates a manifest for an image without one
 */
function imageIdOf({ configDigest, manifestDigest }: Identity, store: ImageStore): Digest | undefined {
  return store.imageIdIs === 'manifest' ? manifestDigest : configDigest;
}

/** Describes how the engine's image differs from the expected one; empty if it is the same image, and complete. */
export function differences(expected: Identity, found: InspectedImage, store: ImageStore): readonly string[] {
  const imageId = imageIdOf(expected, store);
  const layersFit =
    expected.diffIds.length === found.diffIds.length &&
    expected.diffIds.every((diffId, position) => diffId === found.diffIds[position]);
  const unless = (isSame: boolean, text: string): readonly string[] => (isSame ? [] : [text]);
  return [
    ...unless(
      imageId === undefined || imageId === found.imageId,
      `image ID ${found.imageId} instead of ${imageId ?? ''}`,
    ),
    ...unless(
      found.configDigest === undefined || found.configDigest === expected.configDigest,
      `config digest ${found.configDigest ?? ''} instead of ${expected.configDigest ?? 'none'}`,
    ),
    // Podman changes some members of the config in its output. But its image ID is the config digest.
    ...(store.returnsConfig ? configDifferences(expected, found) : []),
    ...unless(layersFit, `layers ${listed(found.diffIds)} instead of ${listed(expected.diffIds)}`),
    ...unless(
      samePlatform(expected.platform, found.platform),
      `platform ${formatPlatform(found.platform)} instead of ${formatPlatform(expected.platform)}`,
    ),
    ...unless(found.isWhole !== false, 'missing content, so that docker save would fail'),
  ];
}

// The config members that every engine returns and containers use (docker-image-spec, DockerOCIImageConfig). Docker before 28 returns more
// members, and Docker before 25 has no StartInterval in a health check.
const plain = [
  'User',
  'Env',
  'Entrypoint',
  'Cmd',
  'WorkingDir',
  'Labels',
  'StopSignal',
  'ArgsEscaped',
  'OnBuild',
  'Shell',
];
const healthMembers = ['Test', 'Interval', 'Timeout', 'StartPeriod', 'Retries'];

/**
 * Returns a config's members in a form that can be compared. Docker 29's classic store normalises ports, but its containerd store returns
 * them unchanged.
 */
function compared(config: JsonObject): ReadonlyMap<string, string> {
  const { ExposedPorts: ports, Volumes: volumes, Healthcheck: health } = config;
  const namesOf = (set: unknown): readonly string[] => (isObject(set) ? Object.keys(set) : []);
  const checks = isObject(health) ? healthMembers.map((name) => [name, health[name]]) : [];
  return new Map([
    ...plain.map((name) => [name, normalized(config[name])] as const),
    ['ExposedPorts', normalized([...new Set(namesOf(ports).map(wholePort))].sort())] as const,
    ['Volumes', normalized(namesOf(volumes).toSorted())] as const,
    ['Healthcheck', normalized(sorted(Object.fromEntries(checks)))] as const,
  ]);
}

// moby api/types/network/port.go, ParsePort
function wholePort(port: string): string {
  const [number = '', protocol = ''] = port.split('/');
  return `${number.replace(/^0+(?=\d)/, '')}/${protocol.toLowerCase() || 'tcp'}`;
}

/** Compares the config as the engine has read it. The image ID proves only which bytes the engine has. */
function configDifferences(expected: Identity, found: InspectedImage): readonly string[] {
  const has = compared(found.config);
  const other = [...compared(expected.config)].filter(([name, value]) => has.get(name) !== value);
  const created = [expected.created, found.created].map(timeOf);
  return [
    ...other.map(
      ([name, value]) => `${name} ${quoteForeign(has.get(name) ?? '', 80)} instead of ${quoteForeign(value, 80)}`,
    ),
    ...(Object.is(created[0], created[1]) || Number.isNaN(created[0])
      ? []
      : [`created ${found.created ?? 'at no time'} instead of ${expected.created ?? ''}`]),
  ];
}

// Go's zero time, which an engine may omit. crane and other tools that use the same library write it.
const zeroTime = Date.parse('0001-01-01T00:00:00Z');

/** Returns the time in ms since the epoch; NaN if there is none. */
function timeOf(text: string | undefined): number {
  const time = Date.parse(text ?? '');
  return time === zeroTime ? Number.NaN : time;
}

/** Formats a value for a comparison. Engines omit empty members or write null, and the order of members varies. */
function normalized(value: unknown): string {
  const isEmpty = value === undefined || value === null || value === '' || value === false || value === 0;
  if (isEmpty || (Array.isArray(value) && value.length === 0)) return 'nothing';
  return isObject(value) && Object.keys(value).length === 0 ? 'nothing' : JSON.stringify(sorted(value));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  const members = Object.entries(value).filter(([, member]) => normalized(member) !== 'nothing' || isObject(member));
  const ordered: JsonObject = Object.fromEntries(
    members.sort(([one], [other]) => (one < other ? -1 : 1)).map(([name, member]) => [name, sorted(member)]),
  );
  return ordered;
}

function listed(diffIds: readonly Digest[]): string {
  const last = diffIds.at(-1);
  return last === undefined ? 'none' : `${String(diffIds.length)} up to ${last.slice(0, 19)}…`;
}

/** @throws HandoverError `image-mismatch` */
function requireSameImage(reference: string, expected: Identity, found: InspectedImage, store: ImageStore): void {
  const wrong = differences(expected, found, store);
  if (wrong.length === 0) return;
  throw new HandoverError(
    'image-mismatch',
    `${reference} is not the image that was handed over: ${wrong.join('; ')}.`,
    'The tag is unchanged. Re-run the job that exports the image. If the error repeats, look for a step that builds or ' +
      'pulls the same tag on this runner.',
  );
}
