import { basename } from 'node:path';
import type { LoadInputs } from '../inputs.ts';
import type { PlaceInputs } from '../own-inputs.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { requireArtifactName } from '../../shared/image/artifact-name.ts';
import { type Destination, formatDestination, parseDestination } from '../../shared/image/destination.ts';
import { type Digest, parseDigest } from '../../shared/image/digest.ts';
import { recordName } from '../../shared/image/record.ts';
import {
  parsePinnedReference,
  parseTaggedReference,
  type PinnedReference,
  type Reference,
} from '../../shared/image/reference.ts';
import { type EngineName, parseEngineName, requireDocker } from '../../shared/image/host.ts';

/** All that is decided before anything is done. */
export interface LoadPlan {
  readonly artifactName: string;
  /** The reference asked for; undefined takes the record's. */
  readonly reference: Reference | undefined;
  readonly tarballPath: string | undefined;
  readonly expectedConfigDigest: Digest | undefined;
  readonly expectedRevision: string | undefined;
  readonly checkPlatform: boolean;
  /** Whether the engine may fetch layers one by one. */
  readonly overlap: boolean;
  readonly from: ImagePlace;
  /** What to pull; undefined takes the record's. */
  readonly registryImage: PinnedReference | undefined;
  readonly engine: EngineName;
  readonly into: Destination;
  /** Where to write an OCI layout. */
  readonly layoutPath: string | undefined;
}

const places = ['artifact', 'registry', 'artifact-then-registry', 'registry-then-artifact'] as const;

/** Where an image comes from. */
type ImagePlace = (typeof places)[number];
/** The part of it that doesn't depend on the artifact. */
export type EachPlan = Omit<LoadPlan, 'artifactName'>;

/** What an image without a reference of its own is called. */
export const fallbackReference = parseTaggedReference('charon:local');

/** @throws HandoverError `invalid-input` */
export function planLoad(inputs: LoadInputs, places?: PlaceInputs): LoadPlan {
  return { artifactName: requireArtifactName(inputs.artifactName), ...planEach(inputs, places) };
}

/** @throws HandoverError `invalid-input` */
export function planEach(inputs: LoadInputs, places: PlaceInputs = onlyEngine): EachPlan {
  const engine = parseEngineName(inputs.engine);
  const from = choosePlace(inputs.from);
  if (from !== 'artifact') requireDocker(engine, `\`from: ${from}\``);
  const { ociLayout: layoutPath } = places;
  const into = planDestination(inputs, places, from, engine);
  return {
    reference: inputs.image === undefined ? undefined : parseTaggedReference(inputs.image),
    tarballPath: inputs.tarball,
    expectedConfigDigest:
      inputs.expectedConfigDigest === undefined ? undefined : requireExpectedDigest(inputs.expectedConfigDigest),
    expectedRevision: inputs.expectedRevision,
    checkPlatform: inputs.checkPlatform,
    overlap: inputs.overlap,
    from,
    registryImage: inputs.registryImage === undefined ? undefined : parsePinnedReference(inputs.registryImage),
    engine,
    into,
    layoutPath,
  };
}

/** What the joined action knows of. */
const onlyEngine: PlaceInputs = { into: 'docker', ociLayout: undefined };

function planDestination(
  { tarball }: LoadInputs,
  { into: text, ociLayout }: PlaceInputs,
  from: ImagePlace,
  engine: EngineName,
): Destination {
  const into = parseDestination(text);
  const [asked] = [
    ...(ociLayout === undefined ? [] : ['oci-layout']),
    ...(into.kind === 'engine' ? [] : [`into: ${formatDestination(into)}`]),
  ];
  if (asked !== undefined && from !== 'artifact') {
    throw invalid(
      `\`${asked}\` and \`from: ${from}\` are given together, but only an engine pulls.`,
      'Leave `from` out: the image then comes from its artifact.',
    );
  }
  if (into.kind !== 'engine' && engine !== 'docker') {
    throw invalid(
      `\`engine: ${engine}\` and \`into: ${formatDestination(into)}\` are given together, but the image goes into one of them.`,
      'Leave one of them out. Nodes of kind and k3d are looked for in docker.',
    );
  }
  if (into.kind === 'none' && ociLayout === undefined && tarball === undefined) {
    throw invalid(
      '`into: none` leaves nothing behind without `oci-layout` or `tarball`.',
      'Add one of them; with `load: false` nothing is downloaded but what the records say.',
    );
  }
  return into;
}

function invalid(message: string, hint: string): HandoverError {
  return new HandoverError('invalid-input', message, hint);
}

function choosePlace(text: string): ImagePlace {
  const place = places.find((one) => one === text);
  if (place !== undefined) return place;
  throw new HandoverError(
    'invalid-input',
    `The input \`from\` is "${quoteForeign(text)}"; expected ${places.join(', ')}.`,
    'Correct `from` under `with:`.',
  );
}

/** @throws HandoverError `invalid-input` */
export function requireExpectedDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest !== undefined) return digest;
  throw new HandoverError(
    'invalid-input',
    `The input \`expected-config-digest\` is "${quoteForeign(text)}"; expected sha256:<64 hex digits>.`,
    'Give it the output `config-digest` of export-image: ${{ needs.build.outputs.config-digest }}.',
  );
}

/**
 * Which file of an artifact without a record is the tarball: the only file, or the only one that is called so.
 * @throws HandoverError `image-not-found` listing the files
 */
export function chooseTarball(artifactName: string, names: readonly string[]): string {
  const files = names.filter((name) => name !== recordName);
  const named = files.filter((name) => /\.(?:tar|tar\.(?:gz|zst|xz|bz2)|tgz|tzst|txz|tbz2)$/i.test(basename(name)));
  const [chosen, ...others] = files.length === 1 ? files : named;
  if (chosen !== undefined && others.length === 0) return chosen;
  const found = files.length === 0 ? 'no file' : files.slice(0, 10).join(', ');
  throw new HandoverError(
    'image-not-found',
    `The artifact "${artifactName}" should hold one tarball of an image; it holds ${found}.`,
    'Upload the tarball alone, or make the artifact with export-image.',
  );
}
