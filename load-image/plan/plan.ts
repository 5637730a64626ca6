import type { LoadInputs } from '../inputs.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { type Expectations, parseExpectedDigest } from '../../shared/handed-over/expectations.ts';
import type { Wish } from '../../shared/handed-over/opened-artifact.ts';
import { requireArtifactName } from '../../shared/image/artifact-name.ts';
import { type Destination, formatDestination, parseDestination } from '../../shared/image/destination.ts';
import type { Platform } from '../../shared/image/platform.ts';
import {
  parsePinnedReference,
  parseTaggedReference,
  type PinnedReference,
  type Reference,
} from '../../shared/image/reference.ts';
import { type EngineName, parseEngineName, requireDocker } from '../../shared/image/host.ts';

/** Everything that is decided before any work. */
export interface LoadPlan extends Omit<Expectations, 'host'> {
  /** The name, or `id:` and the id. */
  readonly artifactName: string;
  /** The wanted reference; undefined keeps the artifact's references. */
  readonly reference: Reference | undefined;
  readonly tarballPath: string | undefined;
  readonly checkPlatform: boolean;
  /** Whether the engine may pull layers one by one. */
  readonly overlap: boolean;
  readonly from: ImagePlace;
  /** The reference to pull; undefined uses the record's. */
  readonly registryImage: PinnedReference | undefined;
  readonly engine: EngineName;
  readonly into: Destination;
  /** Path of the OCI layout to write. */
  readonly layoutPath: string | undefined;
}

const places = ['artifact', 'registry', 'artifact-then-registry', 'registry-then-artifact'] as const;

type ImagePlace = (typeof places)[number];
/** The part of the plan that is the same for all artifacts. */
export type EachPlan = Omit<LoadPlan, 'artifactName'>;

/** @throws HandoverError `invalid-input` */
export function planLoad(inputs: LoadInputs): LoadPlan {
  return { artifactName: requireArtifactName(inputs.artifactName), ...planEach(inputs) };
}

/** @throws HandoverError `invalid-input` */
export function planEach(inputs: LoadInputs): EachPlan {
  const engine = parseEngineName(inputs.engine);
  const from = choosePlace(inputs.from);
  if (from !== 'artifact') requireDocker(engine, `\`from: ${from}\``);
  const into = planDestination(inputs, from, engine);
  return {
    reference: inputs.image === undefined ? undefined : parseTaggedReference(inputs.image),
    tarballPath: inputs.tarball,
    expectedConfigDigest:
      inputs.expectedConfigDigest === undefined ? undefined : parseExpectedDigest(inputs.expectedConfigDigest),
    expectedRevision: inputs.expectedRevision,
    checkPlatform: inputs.checkPlatform,
    overlap: inputs.overlap,
    from,
    registryImage: inputs.registryImage === undefined ? undefined : parsePinnedReference(inputs.registryImage),
    engine,
    into,
    layoutPath: inputs.ociLayout,
  };
}

function planDestination(
  { tarball, into: text, ociLayout }: LoadInputs,
  from: ImagePlace,
  engine: EngineName,
): Destination {
  const into = parseDestination(text);
  const [asked] = [
    ...(ociLayout === undefined ? [] : ['oci-layout']),
    ...(into.kind === 'engine' ? [] : [`into: ${formatDestination(into)}`]),
  ];
  if (asked !== undefined && from !== 'artifact') {
    throw invalidInput(
      `\`${asked}\` and \`from: ${from}\` are given together, but only an engine pulls.`,
      'Leave `from` out: the image then comes from its artifact.',
    );
  }
  if (into.kind !== 'engine' && engine !== 'docker') {
    throw invalidInput(
      `\`engine: ${engine}\` and \`into: ${formatDestination(into)}\` are given together, but the image goes into one of them.`,
      'Leave one of them out. Nodes of kind, k3d and minikube are containers of docker.',
    );
  }
  if (into.kind === 'none' && ociLayout === undefined && tarball === undefined) {
    throw invalidInput(
      '`into: none` leaves nothing behind without `oci-layout` or `tarball`.',
      'Add one of them; with `load: false` only the records are downloaded.',
    );
  }
  return into;
}

function choosePlace(text: string): ImagePlace {
  const place = places.find((one) => one === text);
  if (place !== undefined) return place;
  throw invalidInput(
    `The input \`from\` is "${quoteForeign(text)}"; expected ${places.join(', ')}.`,
    'Correct `from` under `with:`.',
  );
}

/** Returns what the plan wants of an artifact's images, for an engine of that platform. */
export function wishOf(plan: EachPlan, platform: Platform): Wish {
  const { reference, expectedConfigDigest, expectedRevision, checkPlatform } = plan;
  return { reference, expectedConfigDigest, expectedRevision, host: checkPlatform ? platform : undefined };
}
