import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs of export-image, as given; `planExport` interprets them. */
export type ExportInputs = ReturnType<typeof readExportInputs>;

/** @throws HandoverError `invalid-input` */
export function readExportInputs(inputs: Inputs) {
  return {
    ...readBuiltImageInputs(inputs, readRareInputs(inputs)),
    /** Same as `platform`, under the name that docker/build-push-action uses. */
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
  } as const;
}

/** Inputs for a push to a registry in addition to the artifact. */
export type PushInputs = ExportInputs['push'];

/** @throws HandoverError `invalid-input` */
export function readAttestationInputs(inputs: Inputs) {
  return { provenance: inputs.optional('provenance'), sbom: inputs.optional('sbom') } as const;
}

/**
 * Reads the inputs for an image that is built here. The joined action has the same inputs.
 * @throws HandoverError `invalid-input`
 */
export function readBuiltImageInputs(inputs: Inputs, rare: RareBuildInputs = noRareInputs) {
  return {
    image: inputs.optional('image'),
    tags: inputs.optional('tags'),
    repository: inputs.optional('repository'),
    artifactName: inputs.text('artifact-name'),
    /** 0 means the repository's default. */
    retentionDays: inputs.integer('retention-days', 0, 90),
    platform: inputs.text('platform'),
    build: { ...readBuildInputs(inputs), ...rare },
    bake: {
      /** Targets and groups to build. */
      targets: inputs.listOrNone('bake-targets'),
      /** Paths, relative to `workdir`. */
      files: inputs.listOrNone('bake-files'),
      /** Overrides for the file, in the form that `docker buildx bake --set` accepts. */
      set: inputs.lines('bake-set'),
      /** The folder in which bake runs and resolves paths. */
      workdir: inputs.optional('workdir'),
    },
    jobKey: inputs.optional('job-key'),
  } as const;
}

/** What to build from a bake file. */
export type BakeInputs = ExportInputs['bake'];

/** Settings for `docker buildx build`. */
export type BuildInputs = ExportInputs['build'];

function readBuildInputs(inputs: Inputs) {
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
  } as const;
}

/** Build settings that few workflows need. The joined action doesn't have them. */
type RareBuildInputs = ReturnType<typeof readRareInputs>;

const noRareInputs: RareBuildInputs = { allow: [], addHosts: [], shmSize: undefined, ulimit: [] };

function readRareInputs(inputs: Inputs) {
  return {
    allow: inputs.list('allow'),
    addHosts: inputs.list('add-hosts'),
    shmSize: inputs.optional('shm-size'),
    ulimit: inputs.lines('ulimit'),
  } as const;
}
