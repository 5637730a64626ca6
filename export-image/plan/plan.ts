import type { BuildInputs, ExportInputs } from '../inputs.ts';
import {
  type AttestationFacts,
  type Attestations,
  noAttestations,
  planAttestations,
  planPush,
  type PushPlan,
} from './push-plan.ts';
import { type BakeSource, planBake, withoutCachesRead } from './bake.ts';
import { type BuildSecret, parseSecrets, requireBuildLines, withDefaultContext } from './build-arguments.ts';
import { mayReadCache, resolveCacheTo, withoutGhaCache } from './cache.ts';
import { chooseCompression, type NewLayers } from './compression.ts';
import { chooseTags, immutableTag, lines, loweredNotices, parseMetadataTags } from '../../shared/image/tags.ts';
import { HandoverError, invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { requireArtifactName } from '../../shared/image/artifact-name.ts';
import { parseDigest } from '../../shared/image/digest.ts';
import { parsePlatform, type Platform } from '../../shared/image/platform.ts';
import {
  formatReference,
  isImageId,
  parseTaggedReference,
  type Reference,
  repeatedName,
  type TaggedReference,
} from '../../shared/image/reference.ts';
import {
  type EngineName,
  parseEngineName,
  requireDocker,
  type Runner,
  runnerPlatform,
} from '../../shared/image/host.ts';
import { branchOf, type WorkflowEvent, workflowEvent } from '../../shared/image/workflow-event.ts';

/** An image to build. */
interface BuildSource {
  readonly kind: 'build';
  readonly build: BuildInputs;
  readonly secrets: readonly BuildSecret[];
}

/** An image in this engine: a reference with a tag or digest, or an image ID. */
interface EngineSource {
  readonly kind: 'engine';
  readonly image: string;
}

/** An existing tarball, or the folder of an existing OCI layout. */
interface GivenSource {
  readonly kind: 'tarball' | 'layout';
  readonly path: string;
}

export type ExportSource = BuildSource | BakeSource | EngineSource | GivenSource;

/** Decisions that apply to every source. */
interface AnyPlan {
  /** The image's reference in later jobs; if undefined, the one in its bake file, tarball or layout. */
  readonly reference: TaggedReference | undefined;
  /** Additional references of the image, in the order of the input, without `reference`. */
  readonly tags: readonly TaggedReference[];
  /** The event's immutable tag, if the event has a commit. */
  readonly immutableTag: string | undefined;
  readonly platform: Platform;
  readonly tarballPath: string;
  readonly artifactName: string;
  /** What happens if another job has already used the artifact's name: `keep` keeps the image on this runner only. */
  readonly whenTaken: 'fail' | 'keep';
  /** 0 means the repository's default. */
  readonly retentionDays: number;
  readonly engine: EngineName;
  readonly jobKey: string;
  /** Undefined if nothing is pushed. */
  readonly push: PushPlan | undefined;
  /** Decisions, for the log. */
  readonly remarks: readonly string[];
  /** Changes to the inputs, for the log. */
  readonly notices: readonly string[];
  /** Omissions that may affect the result. */
  readonly warnings: readonly string[];
}

/** Decisions for sources that are written to an OCI layout. */
interface AnyLayoutPlan extends AnyPlan {
  readonly requireCache: boolean;
  readonly compression: NewLayers;
}

/** An image to build, or an image in the engine. */
export interface ImagePlan extends AnyLayoutPlan {
  readonly kind: 'image';
  readonly source: BuildSource | EngineSource;
  readonly reference: TaggedReference;
  /** Additional images in this engine for the same tarball. */
  readonly further: readonly TaggedReference[];
  /** Attestations of a built image. */
  readonly attestations: Attestations;
}

/** An image to build. */
export type BuildPlan = ImagePlan & { readonly source: BuildSource };

/** Images that a bake file defines. */
export interface BakePlan extends AnyLayoutPlan {
  readonly kind: 'bake';
  readonly source: BakeSource;
}

export type LayoutPlan = ImagePlan | BakePlan;

/** An existing tarball or OCI layout. */
export interface TarballPlan extends AnyPlan {
  readonly kind: 'tarball';
  readonly source: GivenSource;
}

export type ExportPlan = LayoutPlan | TarballPlan;

export interface ExportFacts extends AttestationFacts {
  readonly hasCacheService: boolean;
  /** The value of `ACTIONS_CACHE_MODE`. */
  readonly cacheMode?: string;
  readonly maxRetentionDays: number | undefined;
  /** The variables that docker/metadata-action set: `DOCKER_METADATA_OUTPUT_*`, by name. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly runner: Runner;
  /** Web address of the repository; empty outside of a workflow. */
  readonly repositoryUrl: string;
}

const defaultReference = 'charon:local';

/** @throws HandoverError `invalid-input` */
export function planExport(inputs: ExportInputs, facts: ExportFacts): ExportPlan {
  const messages: Messages = { remarks: [], notices: [], warnings: [] };
  const { notices } = messages;
  const event = workflowEvent(facts.event);
  const taken = inputs.sourceImage === undefined ? undefined : parseEngineImage(inputs.sourceImage);
  const chosen = chooseSource(inputs, facts, taken, messages);
  const source = withBranchLabel(chosen, inputs.branchLabel, event, notices);
  const what = identify(source, inputs, taken);
  const { reference } = what;
  const tags = chooseTags(inputs, { event, metadata: facts.metadata }, notices);
  const platform = choosePlatform(inputs, facts.runner);
  const engine = chooseEngine(inputs.engine, source);
  const attestations = planAttestations(inputs.push, facts);
  const push = planPush(inputs.push, tags, source.kind, platform, attestations);
  if (source.kind !== 'build' && attestations.areWanted)
    notices.push('`provenance` and `sbom` have no effect: only a build of a Dockerfile gets attestations here.');
  if (push !== undefined) requireDocker(engine, '`push: true`');
  const own = reference === undefined ? undefined : formatReference(reference);
  // Outside of a workflow there is no event.
  if (event.kind === 'none' && facts.event.name !== '') notices.push(`There is no immutable tag: ${event.reason}.`);
  notices.push(...loweredNotices([reference, taken?.reference, ...tags]));
  const further = chooseFurther(inputs.furtherImages, source, [reference, ...tags]);
  const plan = {
    tags: tags.filter((tag) => formatReference(tag) !== own),
    immutableTag: immutableTag(event),
    platform,
    tarballPath: inputs.tarball,
    artifactName: requireArtifactName(inputs.artifactName),
    whenTaken: 'fail',
    retentionDays: chooseRetention(inputs.retentionDays, facts, notices),
    engine,
    jobKey: inputs.jobKey ?? '',
    push,
    ...messages,
  } as const;
  if (what.kind === 'tarball') return { ...plan, ...what };
  const compression = chooseCompression(inputs.compression, inputs.compressionLevel);
  const layout = { ...plan, requireCache: inputs.requireCache, compression } as const;
  if (what.kind === 'bake') return { ...layout, ...what };
  // By default, only a pushed image has attestations. Without a push, the artifact contains none.
  const isAttested = source.kind === 'build' && (push !== undefined || attestations.areWanted);
  return { ...layout, ...what, further, attestations: isAttested ? attestations : noAttestations };
}

/** Returns whether the build itself pushes the image: there is one platform, and nothing must be checked first. */
export function isPushedByItsBuild(plan: LayoutPlan): boolean {
  const { source, push, requireCache } = plan;
  // An SBOM requires a scan of the image, and a failed scan would fail the build.
  const isScanned = plan.kind === 'image' && plan.attestations.sbom !== 'false';
  return source.kind === 'build' && push?.listedPlatforms.length === 0 && !isScanned && !requireCache;
}

/** Returns the same build without the caches that it reads. */
export function withoutCacheFrom(plan: LayoutPlan): LayoutPlan {
  if (plan.kind === 'bake') return { ...plan, source: withoutCachesRead(plan.source) };
  const { source } = plan;
  if (source.kind !== 'build') return plan;
  return { ...plan, source: { ...source, build: { ...source.build, cacheFrom: [] } } };
}

/** The image of `source-image`. */
interface EngineImage {
  /** The name by which the engine finds it. */
  readonly image: string;
  /** Undefined for an image ID. */
  readonly reference: Reference | undefined;
}

// The name always gets a tag or digest. Otherwise, the engine could read it as the beginning of an ID.
function parseEngineImage(text: string): EngineImage {
  const [first = ''] = lines(text);
  if (isImageId(first)) return { image: parseDigest(first) ?? first, reference: undefined };
  const [reference] = parseMetadataTags(text);
  const { tag, digest } = reference;
  return { image: formatReference((tag ?? digest) ? reference : { ...reference, tag: 'latest' }), reference };
}

/** Receives the plan's messages to the user, by log level. */
type Messages = Readonly<Record<'remarks' | 'notices' | 'warnings', string[]>>;

function chooseSource(
  inputs: ExportInputs,
  facts: ExportFacts,
  taken: EngineImage | undefined,
  messages: Messages,
): ExportSource {
  const { sourceImage, sourceTarball, sourceLayout } = inputs;
  const build = withDefaultContext(inputs.build, facts.event, facts.repositoryUrl);
  const bake = planBake(inputs);
  if (bake !== undefined) return bake;
  const named = {
    ...{ 'source-image': sourceImage, 'source-tarball': sourceTarball, 'source-layout': sourceLayout },
    ...{ file: build.file, target: build.target },
  };
  const given = Object.entries(named).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (given.length > 1 && given[0]?.startsWith('source-') === true) {
    throw invalidInput(
      `The image has more than one source: ${given.join(', ')} are set.`,
      'Set one of `source-image`, `source-tarball`, `source-layout` or the inputs of a build (`file`, `target`).',
    );
  }
  if (taken !== undefined) return { kind: 'engine', image: taken.image };
  if (sourceTarball !== undefined) return givenSource('tarball', sourceTarball, inputs.compression);
  if (sourceLayout !== undefined) return givenSource('layout', sourceLayout, inputs.compression);
  requireBuildLines(build);
  const secrets = parseSecrets(build, messages.warnings);
  return { kind: 'build', build: { ...build, ...chooseCaches(inputs, facts, messages) }, secrets };
}

function givenSource(kind: GivenSource['kind'], path: string, compression: string): GivenSource {
  if (compression.trim() !== 'auto') {
    throw invalidInput(
      `A \`source-${kind}\` is handed over unchanged, but \`compression\` is "${quoteForeign(compression)}".`,
      'Remove `compression`, or set `source-image`.',
    );
  }
  if (path.trim() !== '') return { kind, path: path.trim() };
  throw invalidInput(
    `The input \`source-${kind}\` is "${quoteForeign(path)}"; expected a path.`,
    'Check the expression it comes from, or remove the line to build the image here.',
  );
}

function chooseCaches(
  { build, requireCache }: ExportInputs,
  facts: ExportFacts,
  { remarks, notices }: Messages,
): Pick<BuildInputs, 'cacheFrom' | 'cacheTo'> {
  const service = { isThere: facts.hasCacheService, mode: facts.cacheMode ?? '' };
  const cacheTo = resolveCacheTo(build.cacheTo, { event: facts.event, service, requireCache }, remarks);
  if (mayReadCache(service)) return { cacheFrom: build.cacheFrom, cacheTo };
  const { caches, asked } = withoutGhaCache(build.cacheFrom);
  const why = service.isThere
    ? `This job's \`cache-mode\` is \`${service.mode}\``
    : 'There is no Actions cache service here';
  if (asked) notices.push(`${why}: cache-from type=gha is omitted.`);
  return { cacheFrom: caches, cacheTo };
}

/**
 * Returns the source with a label that records the branch. If the user has set that label, it is kept.
 * @throws HandoverError `invalid-input` for a source that can't get a label, or for a malformed label name
 */
function withBranchLabel(
  source: ExportSource,
  name: string | undefined,
  event: WorkflowEvent,
  notices: string[],
): ExportSource {
  if (name === undefined) return source;
  if (source.kind !== 'build' || !/^[^\s=]+$/.test(name)) {
    const why =
      source.kind === 'build'
        ? 'the name of a label has no "=" and no white space'
        : 'only a build can add a label, and the image has another source';
    throw invalidInput(
      `The input \`branch-label\` is "${quoteForeign(name)}": ${why}.`,
      'Set it to a name such as io.charon.feature.branch, or remove the line. Label other images in their builds.',
    );
  }
  const { labels } = source.build;
  if (labels.some((label) => label.startsWith(`${name}=`))) return source;
  const branch = branchOf(event);
  if (branch === undefined) {
    notices.push(`The label ${name} is omitted: this run has no branch.`);
    return source;
  }
  return { ...source, build: { ...source.build, labels: [...labels, `${name}=${branch}`] } };
}

/** Returns the kind of the plan, and the image's reference in later jobs. */
function identify(source: ExportSource, { image, sourceImage }: ExportInputs, taken: EngineImage | undefined) {
  const reference = image === undefined ? undefined : parseTaggedReference(image);
  if (source.kind === 'bake') return { kind: 'bake', source, reference } as const;
  if (source.kind === 'build' || source.kind === 'engine')
    return { kind: 'image', source, reference: reference ?? ownReference(source, sourceImage, taken) } as const;
  return { kind: 'tarball', source, reference } as const;
}

/** Returns the image's reference if `image` is not set. */
function ownReference(
  source: BuildSource | EngineSource,
  sourceImage: string | undefined,
  taken: EngineImage | undefined,
): TaggedReference {
  if (source.kind === 'build') return parseTaggedReference(defaultReference);
  if (taken?.reference === undefined) throw noName(`image ID (${lines(sourceImage ?? '')[0] ?? ''})`);
  const { digest, ...named } = taken.reference;
  if (digest === undefined || named.tag !== undefined) return { ...named, tag: named.tag ?? 'latest' };
  throw noName(`digest (${digest})`);
}

function noName(givenBy: string): HandoverError {
  return invalidInput(
    `\`source-image\` is given by ${givenBy}, which contains no tag for the image in later jobs.`,
    'Set `image` to the reference that the integration jobs use, such as charon:local.',
  );
}

/** @param taken the image's own references */
function chooseFurther(
  given: readonly string[],
  source: ExportSource,
  taken: readonly (Reference | undefined)[],
): readonly TaggedReference[] {
  const further = given.map(parseTaggedReference);
  if (further.length > 0 && (source.kind === 'tarball' || source.kind === 'layout')) {
    throw invalidInput(
      `A \`source-${source.kind}\` is handed over unchanged: \`further-images\` can’t be added to it.`,
      'Save all images to one `source-tarball`, or set `source-image` and `further-images`.',
    );
  }
  const twice = repeatedName([...taken.filter((one) => one !== undefined), ...further]);
  if (twice === undefined || further.length === 0) return further;
  throw invalidInput(
    `${twice} is set twice: as the image or in \`further-images\`.`,
    'Set a different reference for each image.',
  );
}

/** Returns the platform. `native` means the runner's platform. `platforms` replaces `platform` if it is set. */
function choosePlatform({ platform, platforms }: ExportInputs, runner: Runner): Platform {
  const [text = platform, ...more] = platforms;
  if (more.length > 0) {
    throw invalidInput(
      `\`platforms\` is ${platforms.map((one) => quoteForeign(one)).join(', ')}, but one image is handed over.`,
      'Set `platform` to the one to hand over. To push several as well, set `push-platforms` and `push: true` in export-image. To ' +
        'hand over several, run one leg of a matrix for each.',
    );
  }
  return text.trim() === 'native' ? runnerPlatform(runner) : parsePlatform(text);
}

function chooseEngine(text: string, source: ExportSource): EngineName {
  const engine = parseEngineName(text);
  if (engine === 'docker' || source.kind !== 'build') return engine;
  throw new HandoverError(
    'builder-unsupported',
    `\`engine: ${engine}\` can't build an image, because buildx needs Docker.`,
    `Build with ${engine} or buildah in an earlier step, and set \`source-image\` to that image.`,
  );
}

function chooseRetention(days: number, facts: ExportFacts, notices: string[]): number {
  const { maxRetentionDays } = facts;
  if (maxRetentionDays === undefined || days <= maxRetentionDays) return days;
  notices.push(`This repository keeps artifacts for ${String(maxRetentionDays)} days at most, not ${String(days)}.`);
  return maxRetentionDays;
}

/** Describes the source for the log. */
export function describeSource(source: ExportSource): string {
  if (source.kind === 'build') return `a build of ${source.build.context}`;
  if (source.kind === 'bake') return `the targets ${source.targets.join(', ')} of a bake file`;
  if (source.kind === 'engine') return `the image ${source.image} in this engine`;
  return `the ${source.kind === 'layout' ? 'OCI layout' : 'tarball'} ${source.path}`;
}
