import type { EachInputs, ImagesInputs, LoadInputs } from '../inputs.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { type Expectations, parseExpectedDigest } from '../../shared/handed-over/expectations.ts';
import type { Wish } from '../../shared/handed-over/opened-artifact.ts';
import { type OtherRun, planOtherRun } from '../../shared/handed-over/other-run-plan.ts';
import { chooseWanted, isPattern, requireArtifactName } from '../../shared/image/artifact-name.ts';
import { type Destination, formatDestination, parseDestination } from '../../shared/image/destination.ts';
import { type EngineName, parseEngineName, requireDocker } from '../../shared/image/host.ts';
import type { Platform } from '../../shared/image/platform.ts';
import {
  parsePinnedReference,
  parseReference,
  parseTaggedReference,
  type PinnedReference,
  type Reference,
} from '../../shared/image/reference.ts';

/** All decisions about the image of one artifact, made before any work. */
export interface LoadPlan extends Omit<Expectations, 'host'> {
  /** The name, or `id:` followed by the id. */
  readonly artifactName: string;
  /** The wanted reference; undefined keeps the artifact's references. */
  readonly reference: Reference | undefined;
  readonly tarballPath: string | undefined;
  readonly checkPlatform: boolean;
  /** Whether the engine may pull layers one by one. */
  readonly overlap: boolean;
  readonly from: ImagePlace;
  /** The reference to pull; if undefined, the one in the record. */
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

function planEach(inputs: EachInputs): EachPlan {
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
  { tarball, into: text, ociLayout }: EachInputs,
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
      `\`${asked}\` and \`from: ${from}\` are given together, but only an engine can pull.`,
      'Leave `from` out: the image then comes from its artifact.',
    );
  }
  if (into.kind !== 'engine' && engine !== 'docker') {
    throw invalidInput(
      `\`engine: ${engine}\` and \`into: ${formatDestination(into)}\` are given together, but the image can go into only one of them.`,
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

/** Returns what the plan expects of an artifact's images, for an engine with that platform. */
export function wishOf(plan: EachPlan, platform: Platform): Wish {
  return { ...plan, host: plan.checkPlatform ? platform : undefined };
}

/** All decisions made before any work: to load one image, to load several, or only to read the mapping or remove artifacts. */
export interface ImagesPlan {
  readonly kind: 'one' | 'several' | 'mapping' | 'removal';
  /** Names, patterns and ids of artifacts; only one name or id if one image is loaded. */
  readonly wanted: readonly string[];
  readonly each: EachPlan;
  /** The name of the artifact for the mapping. */
  readonly digests: string | undefined;
  /** Whether the artifacts are removed at the end. */
  readonly remove: boolean;
  /** The run with the artifacts; undefined for this job's own run. */
  readonly other: OtherRun | undefined;
  /** The image to pull if the artifact doesn't exist; set only if one image is loaded. */
  readonly fallback: Reference | undefined;
  /** Undefined if the step doesn't wait. */
  readonly wait: WaitPlan | undefined;
}

/** How long a load waits for artifacts that don't exist yet, and for which job. */
export interface WaitPlan {
  /** Names, and patterns that at least one artifact must match. */
  readonly wanted: readonly string[];
  readonly minutes: number;
  /** The name of the job that creates them, as on the run's page, or a pattern; undefined if unknown. */
  readonly job: string | undefined;
}

interface StepFacts {
  /** `owner/name` of this job's repository. */
  readonly ownRepository: string;
  /** Time limit of the step. */
  readonly limitMinutes: number;
}

/** @throws HandoverError `invalid-input` */
export function planImages(inputs: ImagesInputs, { ownRepository, limitMinutes }: StepFacts): ImagesPlan {
  const { artifactNames, artifactIds, digestsArtifact, load, remove } = inputs;
  const digests = digestsArtifact === undefined ? undefined : requireArtifactName(digestsArtifact);
  const wanted = chooseWanted(artifactNames, artifactIds);
  const isOne = wanted.length === 1 && !wanted.some(isPattern);
  if (!isOne)
    requireNoneOf(
      inputs,
      ['image', 'tarball', 'oci-layout', 'expected-config-digest', 'from'],
      `\`${artifactIds.length > 0 ? 'artifact-ids' : 'artifact-name'}\` (${wanted.join(', ')}) selects several images`,
    );
  if (!load)
    requireNoneOf(inputs, ['image', 'tarball', 'oci-layout', 'from', 'into'], 'With `load: false` no image is loaded');
  if (!load && remove && digests !== undefined) {
    throw invalidInput(
      'With `load: false` and `remove: true` no record is read, so there are no digests for `digests-artifact`.',
      'Remove the artifacts in a separate step, after the one with `digests-artifact`.',
    );
  }
  const plan = { kind: kindOf(inputs, isOne), wanted, each: planEach(inputs), digests, remove };
  const fallback = planFallback(inputs, plan);
  const other = planOtherRun(inputs, { wanted, ownRepository });
  if (other !== undefined) requireForOther(inputs, plan);
  return { ...plan, fallback, other, wait: planWait(inputs, wanted, other !== undefined, limitMinutes) };
}

function kindOf({ load, remove }: ImagesInputs, isOne: boolean): ImagesPlan['kind'] {
  if (load) return isOne ? 'one' : 'several';
  return remove ? 'removal' : 'mapping';
}

type OnlyForOne = 'image' | 'tarball' | 'oci-layout' | 'expected-config-digest' | 'from' | 'into';

function requireNoneOf(inputs: EachInputs, names: readonly OnlyForOne[], why: string): void {
  const { image, tarball, expectedConfigDigest, ociLayout } = inputs;
  const from = inputs.from === 'artifact' ? undefined : inputs.from;
  const into = inputs.into === 'docker' ? undefined : inputs.into;
  const given = { image, tarball, 'oci-layout': ociLayout, 'expected-config-digest': expectedConfigDigest, from, into };
  const set = names.filter((name) => given[name] !== undefined);
  if (set.length === 0) return;
  throw invalidInput(
    `${why}, but ${set.map((name) => `\`${name}\``).join(' and ')} can apply to one loaded image only.`,
    'Leave it out, or load that image in a separate step.',
  );
}

type Selection = Pick<ImagesPlan, 'kind' | 'each'>;

function planFallback({ fallbackImage }: ImagesInputs, { kind, each }: Selection): Reference | undefined {
  if (fallbackImage === undefined) return undefined;
  if (kind !== 'one') {
    throw invalidInput(
      'The input `fallback-image` replaces one image, but this step does not load one image.',
      'Leave it out.',
    );
  }
  const { tarballPath, layoutPath, into, engine } = each;
  requireDocker(engine, '`fallback-image`');
  const [conflict] = [
    ...(tarballPath === undefined ? [] : ['tarball']),
    ...(layoutPath === undefined ? [] : ['oci-layout']),
    ...(into.kind === 'engine' ? [] : ['into']),
  ];
  if (conflict !== undefined) {
    throw invalidInput(
      `Both \`fallback-image\` and \`${conflict}\` are given, but a pulled image leaves no tarball or layout, and goes only into the engine.`,
      'Leave one of them out.',
    );
  }
  const reference = parseReference(fallbackImage);
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: 'latest' } : reference;
}

/** Rejects inputs that are not allowed for the artifacts of another run. */
function requireForOther({ remove, allowForkRuns }: ImagesInputs, { kind, each }: Selection): void {
  if (remove) {
    throw invalidInput(
      '`remove: true` is given with another run, but a job can remove only the artifacts of its own run.',
      'Remove them in a job of that run, or with the REST API: `gh api --method DELETE repos/OWNER/REPO/actions/artifacts/ID`.',
    );
  }
  // The author of a pull request also chooses the references in its artifact, such as `alpine:latest`.
  if (!allowForkRuns || kind === 'mapping' || each.reference !== undefined) return;
  throw invalidInput(
    '`allow-fork-runs` is given without `image`: a fork would decide which names its images get here.',
    'Set `image` to the one reference that the image should have, such as `image: charon:pr`, and load one artifact.',
  );
}

function planWait(
  { waitMinutes: minutes, waitForJob: job }: ImagesInputs,
  wanted: readonly string[],
  isOtherRun: boolean,
  limitMinutes: number,
): WaitPlan | undefined {
  if (minutes === 0) {
    if (job === undefined) return undefined;
    throw invalidInput(
      `\`wait-for-job\` (${job}) is given, but the step doesn't wait.`,
      'Set `wait-minutes` as well, or leave out `wait-for-job`.',
    );
  }
  if (isOtherRun) {
    throw invalidInput(
      '`wait-minutes` is given, but the artifact is from another run, and the step can only wait for this run’s jobs.',
      'Leave `wait-minutes` out: start the workflow with `on: workflow_run` when the other one is done.',
    );
  }
  if (minutes >= limitMinutes) {
    throw invalidInput(
      `\`wait-minutes\` is ${String(minutes)}, but the step ends after ${String(limitMinutes)} minutes (\`timeout-minutes\`).`,
      'Raise `timeout-minutes`: it must cover the wait and the load.',
    );
  }
  return { wanted, minutes, job };
}
