import { text } from 'node:stream/consumers';
import { asError, HandoverError } from '../base/errors.ts';
import type { LentChunks } from '../bytes/chunks.ts';
import { makeTempDir } from '../bytes/files.ts';
import {
  type CliOutput,
  type CommandName,
  type DockerCli,
  failedCommand,
  lastLine,
  must,
  outputOf,
  refusePodman,
} from './cli.ts';
import {
  type EngineInfo,
  type InspectedImage,
  type ListedImage,
  listingFormat,
  parseInfo,
  parseInspect,
  parseListing,
  parseLoadOutput,
  parsePodmanInfo,
  parsePodmanInspect,
  saysNoSuchImage,
} from './output.ts';
import { isDigest } from '../image/digest.ts';
import { formatPlatform } from '../image/platform.ts';
import { registryOf } from '../image/reference.ts';
import { endOfArchive } from '../tar/header.ts';

/** The state of the registry that an image is pulled from. */
export interface PullWatch {
  /** Settles after the first request for the image. */
  readonly reached: Promise<unknown>;
  /** Settles with the error if the image's bytes can't be read. */
  readonly failed: Promise<unknown>;
}

export interface Engine {
  /** The engine's command, for messages. */
  readonly program: CommandName;
  /** Returns a reference in the form of this engine's list. Image IDs are returned unchanged. */
  nameOf(reference: string): string;
  /** Throws `docker-unavailable` without an engine, `unsupported-host` if it doesn't run Linux containers. */
  info(): Promise<EngineInfo>;
  /** Returns the image of a reference or ID, or undefined. */
  inspect(image: string): Promise<InspectedImage | undefined>;
  /** Inspects references by the engine's own command, as the last check; undefined if `inspect` uses it. Throws `image-missing`. */
  readonly confirm: ((references: readonly string[]) => Promise<readonly InspectedImage[]>) | undefined;
  /** Loads an uncompressed tarball. Returns the loaded references and IDs. Throws `load-failed`, or an error of `chunks`, which ends it. */
  load(chunks: LentChunks): Promise<readonly string[]>;
  /** Pulls by digest from this step's registry; undefined if only whole tarballs are accepted. Throws `load-failed` or its error. */
  readonly pull: ((reference: string, registry: PullWatch) => Promise<void>) | undefined;
  /** Returns the bytes of `docker save`. Throws `image-not-found` during the iteration. */
  save(image: string): AsyncIterable<Buffer>;
  tag(image: string, reference: string): Promise<void>;
  /** Removes a reference if it exists, and the image with its last one. Also works after a cancel. */
  untag(reference: string): Promise<void>;
  /** Removes a tag but keeps the image, even untagged. Also works after a cancel. Undefined if the engine keeps no image without a name. */
  readonly release: ((reference: string) => Promise<void>) | undefined;
  /** Returns all images, including untagged ones. An image with several names is listed several times. */
  images(): Promise<readonly ListedImage[]>;
  /** The same engine for cleanup. It works after a cancel, with little time for each query. */
  readonly forCleanUp: Engine;
}

// What failed, and a hint.
const noDocker = [
  'No Docker engine answers',
  'Start the engine, or check DOCKER_HOST and the permission of its socket. ubuntu-slim and macOS runners have none.',
] as const;
const noPodman = ['Podman fails', 'Run `podman info` in an earlier step, and fix what it reports.'] as const;

/** Docker through its command. */
export function commandEngine(cli: DockerCli): Engine {
  return {
    program: cli.program,
    get forCleanUp() {
      return commandEngine(cli.forCleanUp);
    },
    nameOf: (reference) => reference,
    info: () => infoWith(cli, '{{json .}}', parseInfo, noDocker),
    inspect: (image) => inspectWith(cli, inspectArgs(image), parseInspect),
    confirm: undefined,
    load: (chunks) => loadInto(cli, chunks),
    pull: (reference, registry) =>
      pullWatched(registry, async (signal) => {
        const output = await outputOf(await cli.start(['pull', '--quiet', reference], { signal }));
        return output.exitCode === 0 ? undefined : lastLine(output);
      }),
    save: (image) => saveFrom(cli, ['save', image]),
    tag: async (image, reference) => {
      await must(cli, 'load-failed', ['image', 'tag', image, reference]);
    },
    untag: (reference) => removeReference(cli, reference),
    release: (reference) => releaseTag(cli, reference),
    images: async () => {
      const args = ['image', 'ls', '--all', '--no-trunc', '--digests', '--format', listingFormat];
      return parseListing(await must(cli, 'image-missing', args));
    },
  };
}

/** Podman, which has no daemon: this step removes its files in `tempRoot`. A load needs up to twice the tarball's size there. */
export function podmanEngine(cli: DockerCli, tempRoot: string): Engine {
  const common = commandEngine(cli);
  return {
    ...common,
    get forCleanUp() {
      return podmanEngine(cli.forCleanUp, tempRoot);
    },
    nameOf: podmanName,
    info: () => infoWith(cli, 'json', parsePodmanInfo, noPodman),
    inspect: (image) => inspectWith(cli, ['image', 'inspect', image], parsePodmanInspect),
    load: async (chunks) => {
      await using temp = await makeTempDir(tempRoot);
      return await loadInto(cli, chunks, temp.path);
    },
    // It only accepts whole tarballs.
    pull: undefined,
    save: (image) => savePodman(cli, tempRoot, image),
    tag: (image, reference) => common.tag(image, podmanName(reference)),
    untag: (reference) => common.untag(podmanName(reference)),
    release: async (reference) => {
      await must(cli.forCleanUp, 'image-missing', ['image', 'untag', podmanName(reference), podmanName(reference)]);
    },
  };
}

// The Docker format keeps the config. `oci-archive` would convert it (without the health check), which gives another image.
async function* savePodman(cli: DockerCli, tempRoot: string, image: string): AsyncGenerator<Buffer> {
  await using temp = await makeTempDir(tempRoot);
  yield* saveFrom(cli, ['save', '--format', 'docker-archive', image], temp.path);
}

/** Returns a reference as podman lists it: under `localhost/` without a registry, as in `podman tag`. IDs don't change. @internal */
export function podmanName(reference: string): string {
  return registryOf(reference) !== undefined || isDigest(reference) ? reference : `localhost/${reference}`;
}

/** Returns the arguments to inspect images, one line of JSON each. */
export function inspectArgs(...images: readonly string[]): readonly string[] {
  return ['image', 'inspect', '--format', '{{json .}}', ...images];
}

async function removeReference(cli: DockerCli, name: string): Promise<void> {
  const args = ['image', 'rm', name];
  const output = await cli.forCleanUp.query(args);
  if (output.exitCode !== 0 && !saysNoSuchImage(output.stderr)) throw failedCommand(cli, 'image-missing', args, output);
}

// Docker has no command that removes the last tag of an image without the image. So an empty image gets the tag first.
async function releaseTag({ forCleanUp }: DockerCli, reference: string): Promise<void> {
  const args = ['import', '-', reference];
  const output = await outputOf(await forCleanUp.start(args), emptyTarball());
  if (output.exitCode !== 0) throw failedCommand(forCleanUp, 'image-missing', args, output);
  await removeReference(forCleanUp, reference);
}

export async function* emptyTarball(): AsyncGenerator<Buffer> {
  yield await Promise.resolve(endOfArchive);
}

async function infoWith(
  cli: DockerCli,
  format: string,
  parse: (stdout: string) => EngineInfo | undefined,
  [what, hint]: readonly [string, string],
): Promise<EngineInfo> {
  const output = await cli.query(['info', '--format', format]);
  const parsed = output.exitCode === 0 ? parse(output.stdout) : undefined;
  if (parsed !== undefined) return requireSupportedEngine(parsed);
  if (cli.program === 'docker') await refusePodman(cli);
  const cause = lastLine(output) || `${cli.program} info exited with ${String(output.exitCode)}`;
  throw new HandoverError('docker-unavailable', `${what}: ${cause}`, hint);
}

/** Returns the image of an inspect command, or undefined if there is none. Throws `image-missing` if the command fails. */
async function inspectWith(
  cli: DockerCli,
  args: readonly string[],
  parse: (stdout: string) => InspectedImage | undefined,
): Promise<InspectedImage | undefined> {
  const output = await cli.query(args);
  const parsed = output.exitCode === 0 ? parse(output.stdout) : undefined;
  if (parsed !== undefined) return parsed;
  if (output.exitCode !== 0 && saysNoSuchImage(output.stderr)) return undefined;
  throw failedCommand(cli, 'image-missing', args, output);
}

/** Implements `Engine.load` with a command. */
async function loadInto(cli: DockerCli, chunks: LentChunks, tempDir?: string): Promise<readonly string[]> {
  const output = await outputOf(await cli.start(['load'], { tempDir }), chunks);
  const { loaded, unpackError = '' } = parseLoadOutput(`${output.stdout}\n${output.stderr}`);
  if (output.exitCode === 0 && unpackError === '') return loaded;
  throw failedCommand(cli, 'load-failed', ['load'], { ...output, stderr: unpackError || output.stderr });
}

// An engine on this machine sends its first request immediately. A remote one may wait for its own loopback interface.
const reachMs = 10_000;

/**
 * Runs a pull by digest from this step's registry.
 * @param pull called to pull until the signal is aborted; returns the engine's message if it fails
 * @throws HandoverError `load-failed` if the pull fails, or without a request within ten seconds; the error that `failed` settles with
 */
export async function pullWatched(
  { reached, failed }: PullWatch,
  pull: (signal: AbortSignal) => Promise<string | undefined>,
): Promise<void> {
  const ends = new AbortController();
  const timer = setTimeout(() => ends.abort(new Error('it did not ask')), reachMs);
  void reached.then(() => clearTimeout(timer));
  let failure: unknown;
  void failed.then((error) => {
    failure = error;
    ends.abort(error);
  });
  const refusal = await pull(ends.signal).finally(() => clearTimeout(timer));
  if (failure !== undefined) throw asError(failure);
  if (refusal === undefined) return;
  throw new HandoverError(
    'load-failed',
    `The engine can't fetch layers from this step: ${refusal || 'it did not ask'}.`,
    'Set `overlap: false`.',
  );
}

/** Returns the output of a save command. Throws `image-not-found` during the iteration. */
export async function* saveFrom(cli: DockerCli, args: readonly string[], tempDir?: string): AsyncGenerator<Buffer> {
  const running = await cli.start(args, { tempDir });
  const said = text(running.stderr);
  said.catch(() => undefined); // thrown where it is awaited
  running.stdin.end();
  try {
    const stdout: AsyncIterable<Buffer> = running.stdout;
    yield* stdout;
    const exitCode = await running.exit;
    if (exitCode !== 0) throw failedSave(cli, args, { exitCode, stdout: '', stderr: await said });
  } finally {
    running.kill();
    await running.exit;
  }
}

function failedSave(cli: DockerCli, args: readonly string[], output: CliOutput): HandoverError {
  // moby layer/empty.go: the classic store has no content of an image without layers.
  if (!output.stderr.includes('empty export')) return failedCommand(cli, 'image-not-found', args, output);
  return new HandoverError(
    'unsupported-host',
    `The classic image store of this engine can't save an image without layers (FROM scratch and only LABEL, ENV or the like): ${lastLine(output)}`,
    'Let export-image build it, with `- uses: docker/setup-buildx-action@v4` before it: then the image never passes ' +
      'through that store. Or use an engine with the containerd image store.',
  );
}

const architectures = ['amd64', 'arm64'];

/** Checks that the engine runs Linux containers on amd64 or arm64. Throws `unsupported-host` with its platform. */
export function requireSupportedEngine(info: EngineInfo): EngineInfo {
  const { os, architecture } = info.platform;
  if (os === 'linux' && architectures.includes(architecture)) return info;
  throw new HandoverError(
    'unsupported-host',
    `The engine${info.hostName === '' ? '' : ` on ${info.hostName}`} runs ${formatPlatform(info.platform)} containers; ` +
      'this action needs Linux containers on amd64 or arm64.',
    'Use a runner such as ubuntu-latest (amd64) or ubuntu-24.04-arm (arm64).',
  );
}
