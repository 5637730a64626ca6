import { HandoverError } from '../shared/base/errors.ts';
import { isObject, type JsonObject } from '../shared/base/json.ts';
import { quoteForeign } from '../shared/base/text.ts';
import type { InspectedImage } from '../shared/docker/output.ts';
import type { ImageStore } from '../shared/image/image-store.ts';
import type { Digest } from '../shared/image/digest.ts';
import { formatPlatform, type Platform, runsOn, samePlatform } from '../shared/image/platform.ts';
import type { Identity } from '../shared/handed-over/identity.ts';

// The proof that an image is the one that was handed over: who it is was computed from its bytes (identity.ts), and here that
// is held against what the inputs expect and what the engine has. There is no list of values that would do as well.

/** What the inputs expect of an image. */
export interface Expectations {
  readonly expectedConfigDigest: Digest | undefined;
  readonly expectedRevision: string | undefined;
  readonly checkPlatform: boolean;
}

const revisionLabel = 'org.opencontainers.image.revision';

/**
 * The ID that the engine gives the image: its config's digest, in a containerd store its manifest's.
 * @returns undefined where it can't be foretold: a containerd store makes a manifest for an image that has none
 */
export function imageIdOf({ configDigest, manifestDigest }: Identity, store: ImageStore): Digest | undefined {
  return store.imageIdIs === 'manifest' ? manifestDigest : configDigest;
}

/** How the engine's image differs from the expected one, in words; empty when it is the very image, whole. */
export function differences(expected: Identity, found: InspectedImage, store: ImageStore): readonly string[] {
  const imageId = imageIdOf(expected, store);
  const layersFit =
    expected.diffIds.length === found.diffIds.length &&
    expected.diffIds.every((diffId, position) => diffId === found.diffIds[position]);
  return [
    ...(imageId === undefined || imageId === found.imageId ? [] : [`image ID ${found.imageId} instead of ${imageId}`]),
    ...(found.configDigest === undefined || found.configDigest === expected.configDigest
      ? []
      : [`config digest ${found.configDigest} instead of ${expected.configDigest ?? 'none'}`]),
    // Podman changes members of the config in its answer. Its image ID is the config digest.
    ...(store.returnsConfig ? configDifferences(expected, found) : []),
    ...(layersFit ? [] : [`layers ${listed(found.diffIds)} instead of ${listed(expected.diffIds)}`]),
    ...(samePlatform(expected.platform, found.platform)
      ? []
      : [`platform ${formatPlatform(found.platform)} instead of ${formatPlatform(expected.platform)}`]),
    ...(found.isWhole === false ? ['content that the engine lacks, so that docker save would fail'] : []),
  ];
}

// The members that every engine returns and containers use (docker-image-spec, DockerOCIImageConfig). Docker before 28 returns more
// of them, and Docker before 25 has no StartInterval in a health check.
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

/** Returns a config's members in one form. Docker 29's classic store normalises ports, its containerd store returns them unchanged. */
function compared(config: JsonObject): ReadonlyMap<string, string> {
  const { ExposedPorts: ports, Volumes: volumes, Healthcheck: health } = config;
  const namesOf = (set: unknown): readonly string[] => (isObject(set) ? Object.keys(set) : []);
  const checks = isObject(health) ? healthMembers.map((name) => [name, health[name]]) : [];
  return new Map([
    ...plain.map((name) => [name, said(config[name])] as const),
    ['ExposedPorts', said([...new Set(namesOf(ports).map(wholePort))].sort())] as const,
    ['Volumes', said(namesOf(volumes).toSorted())] as const,
    ['Healthcheck', said(sorted(Object.fromEntries(checks)))] as const,
  ]);
}

// moby api/types/network/port.go, ParsePort
function wholePort(port: string): string {
  const [number = '', protocol = ''] = port.split('/');
  return `${number.replace(/^0+(?=\d)/, '')}/${protocol.toLowerCase() || 'tcp'}`;
}

/** Compares the engine's reading of the config. An image ID proves only which bytes the engine has. */
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

// Go's time without a value, which an engine may leave out. crane and other tools of that library write it.
const zeroTime = Date.parse('0001-01-01T00:00:00Z');

/** In ms since the epoch; NaN for no time. */
function timeOf(text: string | undefined): number {
  const time = Date.parse(text ?? '');
  return time === zeroTime ? Number.NaN : time;
}

/** A value in one form: an engine leaves out what is empty, or writes it as null, and orders members as it likes. */
function said(value: unknown): string {
  const isEmpty = value === undefined || value === null || value === '' || value === false || value === 0;
  if (isEmpty || (Array.isArray(value) && value.length === 0)) return 'nothing';
  return isObject(value) && Object.keys(value).length === 0 ? 'nothing' : JSON.stringify(sorted(value));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  const members = Object.entries(value).filter(([, member]) => said(member) !== 'nothing' || isObject(member));
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
export function requireSameImage(
  reference: string,
  expected: Identity,
  found: InspectedImage,
  store: ImageStore,
): void {
  const wrong = differences(expected, found, store);
  if (wrong.length === 0) return;
  throw new HandoverError(
    'image-mismatch',
    `${reference} is not the image that was handed over: ${wrong.join('; ')}.`,
    'The tag is as it was before. Run the job that exports the image again; if it repeats, look for a step that builds or ' +
      'pulls the same tag on this runner.',
  );
}

/**
 * Compares an image with what the inputs expect of it.
 * @param host platform of this runner's engine
 * @throws HandoverError `image-mismatch`, `revision-mismatch`, `platform-mismatch`
 */
export function requireExpected(
  expectations: Expectations,
  image: Pick<Identity, 'configDigest' | 'labels' | 'platform'>,
  host: Platform,
): void {
  const { expectedConfigDigest, expectedRevision, checkPlatform } = expectations;
  if (expectedConfigDigest !== undefined && expectedConfigDigest !== image.configDigest) {
    throw new HandoverError(
      'image-mismatch',
      `The image has the config digest ${image.configDigest ?? 'unknown'}; \`expected-config-digest\` is ${expectedConfigDigest}.`,
      'Check that `artifact-name` or `registry-image` and `expected-config-digest` come from the same export job, and re-run all jobs.',
    );
  }
  requireRevision(expectedRevision, image.labels[revisionLabel]);
  if (!checkPlatform || runsOn(image.platform, host)) return;
  throw new HandoverError(
    'platform-mismatch',
    `The image is for ${formatPlatform(image.platform)}; this runner's engine is ${formatPlatform(host)}.`,
    `Export with \`platform: ${formatPlatform(host)}\`, use a runner of the image's platform, or set \`check-platform: false\` ` +
      'if the engine emulates it.',
  );
}

function requireRevision(expected: string | undefined, found: string | undefined): void {
  if (expected === undefined || expected === found) return;
  const has = found === undefined ? `has no label ${revisionLabel}` : `was built from ${quoteForeign(found)}`;
  throw new HandoverError(
    'revision-mismatch',
    `The image ${has}; \`expected-revision\` is ${quoteForeign(expected)}.`,
    'Pass `labels: ${{ steps.meta.outputs.labels }}` of docker/metadata-action to the export, and check which commit it ' +
      'names: on a pull request it is the merge commit unless you set it.',
  );
}
