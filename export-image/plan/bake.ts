import { dirname, isAbsolute, relative } from 'node:path';
import type { BakeInputs, BuildInputs, ExportInputs } from '../inputs.ts';
import { type Exporter, outputOf } from './build-arguments.ts';
import { isOnlyAutomatic } from './cache.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { formatPlatform, type Platform } from '../../shared/image/platform.ts';

/** Targets of a bake file, or services of a compose file. The file defines their builds and their names. */
export interface BakeSource extends BakeInputs, Pick<BuildInputs, 'builder' | 'noCache' | 'pull' | 'allow'> {
  readonly kind: 'bake';
  readonly workdir: string;
}

// The group that buildx builds by default.
const everything = ['default'] as const;
const workspace = '.';

/**
 * @returns undefined if there is no bake file in the inputs
 * @throws HandoverError `invalid-input` for an invalid target name, and for inputs that the bake file replaces
 */
export function planBake(inputs: ExportInputs): BakeSource | undefined {
  const { targets, files, set, workdir } = inputs.bake;
  if (targets.length + files.length + set.length === 0) {
    if (workdir === undefined) return undefined;
    throw invalidInput(
      `\`workdir\` is "${quoteForeign(workdir)}", but there is no bake file: it would have no effect.`,
      'Set `bake-files` or `bake-targets`, or remove `workdir`. For a build, set `context`.',
    );
  }
  const ignored = ignoredInput(inputs);
  if (ignored !== undefined) {
    throw invalidInput(
      `\`${ignored}\` is given together with a bake file (\`bake-targets\`, \`bake-files\` or \`bake-set\`), which defines what is built.`,
      hints[ignored] ?? `Set it in the bake file or with \`bake-set\`, or remove \`${ignored}\`.`,
    );
  }
  const wrong = targets.find((name) => !/^\w[\w.-]*$/.test(name));
  if (wrong !== undefined) {
    throw invalidInput(
      `"${quoteForeign(wrong)}" in \`bake-targets\` is not a valid name of a target or group.`,
      'Use names from the bake file, one per line. `docker buildx bake --print` shows them.',
    );
  }
  const { builder, noCache, pull, allow } = inputs.build;
  const named = targets.length === 0 ? everything : targets;
  return { kind: 'bake', targets: named, ...placeOf(inputs.bake), set, builder, noCache, pull, allow };
}

/** Returns whether buildx reads a file as a compose file (bake/compose.go, validateComposeFile). */
export function isComposeFile(file: string): boolean {
  return /\.ya?ml$/i.test(file);
}

/**
 * Returns the files, and the folder in which bake runs. buildx resolves the paths in a compose file from there. `docker compose` resolves
 * them from the folder of the first file, and reads the .env there (Compose specification, "project directory").
 */
function placeOf({ files, workdir }: BakeInputs): Pick<BakeSource, 'files' | 'workdir'> {
  if (workdir !== undefined) return { files, workdir };
  // In buildx, `cwd://` marks a local file when the definition is remote.
  const local = files.map((file) => file.replace(/^cwd:\/\//, ''));
  const folder = dirname(local[0] ?? '');
  if (folder === workspace || !files.every(isComposeFile)) return { files, workdir: workspace };
  return { files: local.map((file) => (isAbsolute(file) ? file : relative(folder, file))), workdir: folder };
}

/** Returns the first input that is set but would have no effect. */
function ignoredInput(inputs: ExportInputs): string | undefined {
  const { image, tags, branchLabel, sourceImage, sourceTarball, sourceLayout, furtherImages, build } = inputs;
  const given = {
    ...{ image, tags, branchLabel, sourceImage, sourceTarball, sourceLayout, furtherImages },
    push: inputs.push.enabled,
    engine: inputs.engine !== 'docker',
    ...build,
    context: build.context !== workspace,
    cacheFrom: !isOnlyAutomatic(build.cacheFrom),
    // These also apply to a bake file.
    ...{ builder: false, noCache: false, pull: false, allow: false },
  };
  const isGiven = (value: string | boolean | readonly string[] | undefined): boolean =>
    typeof value === 'object' ? value.length > 0 : value !== undefined && value !== false;
  const [name] = Object.entries(given).find(([, value]) => isGiven(value)) ?? [];
  return name?.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

const hints: Readonly<Record<string, string>> = {
  image: 'Set the `tags` of each target in the bake file (`image:` in a compose file).',
  tags: 'Set the `tags` of each target in the bake file, or add the bake file of docker/metadata-action to `bake-files`.',
  push: 'Push the tested image in a later job: org/image-handover/publish-image@v1.',
  engine: 'Remove it: buildx needs Docker.',
};

/** Returns the arguments of `docker buildx bake` that print its targets. */
export function bakePrintArguments(source: BakeSource): readonly string[] {
  return [...selection(source, source.set), '--print', '--', ...source.targets];
}

/**
 * Returns a compose file that removes the services' build tags. When it follows the file with those tags, buildx prints each service's
 * `image`, which it otherwise drops (bake/compose.go, ParseCompose).
 */
export function withoutBuildTags(targets: readonly string[]): string {
  const services = targets.map((name) => `  "${name}": {build: {tags: !reset [], x-bake: {tags: !reset []}}}\n`);
  return `services:\n${services.join('')}`;
}

/** The output of one target of a bake file. */
export interface BakeOutput {
  readonly target: string;
  /** Temporary name of the image. Later, it gets its names from the bake file. */
  readonly name: string;
  readonly exporter: Extract<Exporter, { kind: 'oci-layout' }> | 'engine';
}

/** The caches that a build writes for a target, instead of the caches in the file. */
export interface BakeCaches {
  readonly target: string;
  readonly cacheTo: readonly string[];
}

// A stage that doesn't exist. An empty list of stages to rebuild could mean all stages.
const noStage = 'image-handover-none';

// Overrides that this action sets itself. buildx would combine the user's values with them (bake/bake.go, newOverrides).
const ours = /^[^.=]+\.(?:output|platform|tags|cache-to)\+?=/;
const cachesRead = /^[^.=]+\.cache-from\+?=/;

/**
 * Returns the arguments of `docker buildx bake` that build the targets, each into its own output.
 * @param written the folder of the outputs, to which buildx is allowed to write
 * @param caches the caches of all targets, including targets that others are built on
 */
export function bakeArguments(
  source: BakeSource,
  platform: Platform,
  outputs: readonly BakeOutput[],
  { written, caches }: { readonly written: string; readonly caches: readonly BakeCaches[] },
): readonly string[] {
  const set = outputs.flatMap(({ target, name, exporter }) => [
    `${target}.tags=${name}`,
    `${target}.output=${exporter === 'engine' ? 'type=docker' : outputOf(exporter)}`,
  ]);
  return [
    ...overridden(source, [`*.platform=${formatPlatform(platform)}`, ...set], caches),
    ...(source.noCache ? ['--no-cache'] : []),
    ...(source.pull ? ['--pull'] : []),
    ...allowed(source),
    ...['--allow', `fs.write=${written}`, '--'],
    ...outputs.map(({ target }) => target),
  ];
}

/**
 * Returns the arguments of `docker buildx bake` that write one cache of a target that is already built.
 * @param caches the caches of all targets
 */
export function bakeCacheArguments(
  source: BakeSource,
  platform: Platform,
  target: string,
  caches: readonly BakeCaches[],
): readonly string[] {
  // Prevents a rebuild, even if the file requests one.
  const again = ['*.no-cache=false', `*.no-cache-filter=${noStage}`, '*.pull=false'];
  const set = [`${target}.platform=${formatPlatform(platform)}`, `${target}.output=type=cacheonly`, ...again];
  return [...overridden(source, set, caches), ...allowed(source), '--', target];
}

/** Returns the same targets without the caches that they read. */
export function withoutCachesRead(source: BakeSource): BakeSource {
  return { ...source, set: [...source.set.filter((item) => !cachesRead.test(item)), '*.cache-from='] };
}

/** @param set the overrides that this action sets itself */
function overridden(source: BakeSource, set: readonly string[], caches: readonly BakeCaches[]): readonly string[] {
  const given = source.set.filter((item) => !ours.test(item));
  return [
    ...(source.builder === undefined ? [] : ['--builder', source.builder]),
    ...selection(source, [...given, ...set, ...caches.flatMap(setCaches)]),
    ...['--provenance=false', '--sbom=false'],
  ];
}

// buildx needs permission to access files outside its folder. Access to the workspace is always allowed.
function allowed({ allow, workdir }: BakeSource): readonly string[] {
  const items = workdir === workspace ? allow : [...allow, `fs=${relative(workdir, workspace)}`];
  return items.flatMap((item) => ['--allow', item]);
}

// An empty value removes the caches in the file.
function setCaches({ target, cacheTo }: BakeCaches): readonly string[] {
  return (cacheTo.length === 0 ? [''] : cacheTo).map((cache) => `${target}.cache-to=${cache}`);
}

function selection({ files }: BakeSource, set: readonly string[]): readonly string[] {
  return [...files.flatMap((file) => ['--file', file]), ...set.flatMap((item) => ['--set', item])];
}
