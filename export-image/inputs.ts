import type { Inputs } from '../shared/runner/inputs.ts';

/** The build as `docker buildx build` takes it. */
export interface BuildInputs extends RareBuildInputs {
  readonly context: string;
  readonly file: string | undefined;
  readonly target: string | undefined;
  readonly buildArgs: readonly string[];
  readonly buildContexts: readonly string[];
  readonly labels: readonly string[];
  readonly secrets: readonly string[];
  readonly secretFiles: readonly string[];
  readonly secretEnvs: readonly string[];
  readonly ssh: readonly string[];
  readonly cacheFrom: readonly string[];
  readonly cacheTo: readonly string[];
  readonly builder: string | undefined;
  readonly network: string | undefined;
  readonly noCache: boolean;
  readonly pull: boolean;
}

/** The settings of a build that few workflows need. The joined action doesn't have them. */
interface RareBuildInputs {
  readonly allow: readonly string[];
  readonly addHosts: readonly string[];
  readonly shmSize: string | undefined;
  readonly ulimit: readonly string[];
}

/** What is built of a bake file. */
export interface BakeInputs {
  /** Targets and groups. */
  readonly targets: readonly string[];
  /** Relative to `workdir`. */
  readonly files: readonly string[];
  /** Overrides for the file, as `docker buildx bake --set` accepts them. */
  readonly set: readonly string[];
  /** The folder that bake runs in, and resolves paths from. */
  readonly workdir: string | undefined;
}

/** The inputs of export-image as they were given; `planExport` decides what they mean. */
export interface ExportInputs {
  readonly image: string | undefined;
  readonly tags: string | undefined;
  readonly repository: string | undefined;
  readonly branchLabel: string | undefined;
  readonly tarball: string;
  readonly artifactName: string;
  /** 0 is the repository's default. */
  readonly retentionDays: number;
  readonly platform: string;
  /** As docker/build-push-action names it. */
  readonly platforms: readonly string[];
  readonly sourceImage: string | undefined;
  readonly sourceTarball: string | undefined;
  readonly sourceLayout: string | undefined;
  readonly furtherImages: readonly string[];
  readonly build: BuildInputs;
  readonly bake: BakeInputs;
  readonly requireCache: boolean;
  readonly compression: string;
  readonly compressionLevel: string | undefined;
  readonly engine: string;
  readonly jobKey: string | undefined;
  readonly push: PushInputs;
}

/** What is pushed to a registry besides. */
export interface PushInputs {
  readonly enabled: boolean;
  readonly platforms: readonly string[];
  readonly onFailure: string;
  readonly provenance: string | undefined;
  readonly sbom: string | undefined;
}

/** @throws HandoverError `invalid-input` */
export function readAttestationInputs(inputs: Inputs): Pick<PushInputs, 'provenance' | 'sbom'> {
  return { provenance: inputs.optional('provenance'), sbom: inputs.optional('sbom') };
}

/** The inputs of an image that is built here, which the joined action has as well. */
type BuiltImageInputs = Pick<
  ExportInputs,
  ('image' | 'tags' | 'repository' | 'artifactName' | 'retentionDays') | ('platform' | 'build' | 'bake' | 'jobKey')
>;

/** @throws HandoverError `invalid-input` */
export function readBuiltImageInputs(inputs: Inputs, rare: RareBuildInputs = noRareInputs): BuiltImageInputs {
  return {
    image: inputs.optional('image'),
    tags: inputs.optional('tags'),
    repository: inputs.optional('repository'),
    artifactName: inputs.text('artifact-name'),
    retentionDays: inputs.integer('retention-days', 0, 90),
    platform: inputs.text('platform'),
    build: { ...readBuildInputs(inputs), ...rare },
    bake: {
      targets: inputs.listOrNone('bake-targets'),
      files: inputs.listOrNone('bake-files'),
      set: inputs.lines('bake-set'),
      workdir: inputs.optional('workdir'),
    },
    jobKey: inputs.optional('job-key'),
  };
}

/** @throws HandoverError `invalid-input` */
export function readExportInputs(inputs: Inputs): ExportInputs {
  return {
    ...readBuiltImageInputs(inputs, readRareInputs(inputs)),
    platforms: inputs.list('platforms'),
    branchLabel: inputs.optional('branch-label'),
    tarball: inputs.text('tarball'),
    sourceImage: inputs.unlessNone('source-image'),
    sourceTarball: inputs.unlessNone('source-tarball'),
    sourceLayout: inputs.unlessNone('source-layout'),
    furtherImages: inputs.lines('further-images'),
    requireCache: inputs.boolean('require-cache'),
    compression: inputs.text('compression'),
    compressionLevel: inputs.optional('compression-level'),
    engine: inputs.text('engine'),
    push: {
      enabled: inputs.boolean('push'),
      platforms: inputs.list('push-platforms'),
      onFailure: inputs.text('push-failure'),
      ...readAttestationInputs(inputs),
    },
  };
}

const noRareInputs: RareBuildInputs = { allow: [], addHosts: [], shmSize: undefined, ulimit: [] };

function readRareInputs(inputs: Inputs): RareBuildInputs {
  return {
    allow: inputs.list('allow'),
    addHosts: inputs.list('add-hosts'),
    shmSize: inputs.optional('shm-size'),
    ulimit: inputs.lines('ulimit'),
  };
}

function readBuildInputs(inputs: Inputs): Omit<BuildInputs, keyof RareBuildInputs> {
  return {
    context: inputs.text('context'),
    file: inputs.optional('file'),
    target: inputs.optional('target'),
    buildArgs: inputs.lines('build-args'),
    buildContexts: inputs.lines('build-contexts'),
    labels: inputs.lines('labels'),
    secrets: inputs.secrets('secrets'),
    secretFiles: inputs.secretFiles('secret-files'),
    secretEnvs: inputs.secretEnvs('secret-envs'),
    ssh: inputs.list('ssh'),
    cacheFrom: inputs.lines('cache-from'),
    cacheTo: inputs.lines('cache-to'),
    builder: inputs.optional('builder'),
    network: inputs.optional('network'),
    noCache: inputs.boolean('no-cache'),
    pull: inputs.boolean('pull'),
  };
}
