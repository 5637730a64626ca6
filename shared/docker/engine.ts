import { text } from 'node:stream/consumers';
import { asError, HandoverError } from '../base/errors.ts';
import { type LentChunks, writeChunks } from '../bytes/chunks.ts';
import {
  type CliOutput,
  type CommandName,
  type DockerCli,
  failedCommand,
  lastLine,
  outputOf,
  requireDocker,
  type RunningCli,
} from './cli.ts';
import {
  type EngineInfo,
  type InspectedImage,
  type ListedImage,
  listingFormat,
  type LoadReport,
  parseInfo,
  parseInspect,
  parseListing,
  parseLoadOutput,
  saysNoSuchImage,
} from './output.ts';
import { formatPlatform } from '../image/platform.ts';
import { endOfArchive } from '../tar/header.ts';

/** The registry that an image is pulled from, as far as the one who pulls wants to know how it goes. */
export interface PullWatch {
  /** Settles when somebody has asked for the image. */
  readonly reached: Promise<unknown>;
  /** Settles with what went wrong when the image's bytes couldn't be had. */
  readonly failed: Promise<unknown>;
}

/** What the stories need of a container engine. */
export interface Engine {
  /** The engine's command, for messages. */
  readonly program: CommandName;
  /** A reference as this engine lists it; an image ID stays as it is. */
  nameOf(reference: string): string;
  /** Throws `docker-unavailable` without an engine, `unsupported-host` when it doesn't run Linux containers. */
  info(): Promise<EngineInfo>;
  /** The image under a reference or ID, or undefined. */
  inspect(image: string): Promise<InspectedImage | undefined>;
  /**
   * The images under these references, as the engine's own command tells of them: the last word. Undefined where `inspect` is that
   * command. Throws `image-missing`.
   */
  readonly confirm: ((references: readonly string[]) => Promise<readonly InspectedImage[]>) | undefined;
  /**
   * Feeds a plain tarball to `docker load`, and returns what it says it loaded (references and IDs). `onLoaded` is told
   * of each even when the load fails. Throws `load-failed`; an error of `chunks` ends the load and is rethrown.
   */
  load(chunks: LentChunks, onLoaded: (loaded: string) => void): Promise<readonly string[]>;
  /**
   * Pulls an image by digest from a registry that is watched; undefined for an engine that takes whole tarballs only. Throws
   * `load-failed`, and what went wrong with the registry.
   */
  readonly pull: ((reference: string, registry: PullWatch) => Promise<void>) | undefined;
  /** The bytes of `docker save`. Throws `image-not-found` while iterating. */
  save(image: string): AsyncIterable<Buffer>;
  tag(image: string, reference: string): Promise<void>;
  /**
   * Removes a reference, if it is there; the image goes with its last one. Works also when all else has been cancelled.
   */
  untag(reference: string): Promise<void>;
  /** Takes a tag away, and leaves the image, with no name if it was its last. Works also when all else has been cancelled. */
  release(reference: string): Promise<void>;
  /** All images, those without a name included; an image with several names stands here several times. */
  images(): Promise<readonly ListedImage[]>;
  /** The same engine for what puts things back: it works when all else has been cancelled, with little time for each question. */
  readonly forCleanUp: Engine;
}

/** Docker, asked by its command. */
export function commandEngine(cli: DockerCli): Engine {
  return {
    program: cli.program,
    get forCleanUp() {
      return commandEngine(cli.forCleanUp);
    },
    nameOf: (reference) => reference,
    info: () => info(cli),
    inspect: (image) => inspectWith(cli, inspectArgs(image), parseInspect),
    confirm: undefined,
    load: (chunks, onLoaded) => loadInto(cli, chunks, onLoaded),
    pull: (reference, registry) => pullByCommand(cli, reference, registry),
    save: (image) => saveFrom(cli, ['save', image]),
    tag: async (image, reference) => {
      await must(cli, ['image', 'tag', image, reference], 'load-failed');
    },
    untag: (reference) => removeReference(cli, reference),
    release: (reference) => releaseTag(cli, reference),
    images: () => listImages(cli),
  };
}

/** The arguments to inspect images, one line of JSON each. */
export function inspectArgs(...images: readonly string[]): readonly string[] {
  return ['image', 'inspect', '--format', '{{json .}}', ...images];
}

/** Runs a short command that has to work. Throws `code` when it doesn't. */
export async function must(
  cli: DockerCli,
  args: readonly string[],
  code: 'load-failed' | 'image-missing',
): Promise<CliOutput> {
  const output = await cli.query(args);
  if (output.exitCode !== 0) throw failedCommand(cli, code, args, output);
  return output;
}

/** Removes a reference, if it is there: docker and podman do it alike, with a name that each knows. */
export async function removeReference(cli: DockerCli, name: string): Promise<void> {
  const args = ['image', 'rm', name];
  const output = await cli.forCleanUp.query(args);
  if (output.exitCode !== 0 && !saysNoSuchImage(output.stderr)) throw failedCommand(cli, 'image-missing', args, output);
}

// No command of docker's takes the last name of an image and leaves the image: so the name goes to an empty one first.
async function releaseTag({ forCleanUp }: DockerCli, reference: string): Promise<void> {
  const args = ['import', '-', reference];
  const running = await forCleanUp.start(args);
  running.stdin.end(endOfArchive);
  const output = await outputOf(running);
  if (output.exitCode !== 0) throw failedCommand(forCleanUp, 'image-missing', args, output);
  await removeReference(forCleanUp, reference);
}

/** All images with their names: docker and podman list them alike. */
export async function listImages(cli: DockerCli): Promise<readonly ListedImage[]> {
  const args = ['image', 'ls', '--all', '--no-trunc', '--digests', '--format', listingFormat];
  const output = await must(cli, args, 'image-missing');
  return parseListing(output.stdout);
}

async function info(cli: DockerCli): Promise<EngineInfo> {
  const output = await cli.query(['info', '--format', '{{json .}}']);
  const parsed = parseInfo(output.stdout);
  if (output.exitCode !== 0 || parsed === undefined) {
    await requireDocker(cli);
    throw new HandoverError(
      'docker-unavailable',
      `No Docker engine answers: ${lastLine(output) || `docker info exited with ${String(output.exitCode)}`}`,
      'Start the engine, or check DOCKER_HOST and the permission of its socket. ubuntu-slim and macOS runners have none.',
    );
  }
  return requireSupportedEngine(parsed);
}

/** The image that an inspect command tells of, or undefined when there is none. Throws `image-missing` otherwise. */
export async function inspectWith(
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

/** Feeds `load` as `Engine.load` says. */
export async function loadInto(
  cli: DockerCli,
  chunks: LentChunks,
  onLoaded: (loaded: string) => void,
  tempDir?: string,
): Promise<readonly string[]> {
  const report = await load(cli, await cli.start(['load'], { tempDir }), chunks);
  report.loaded.forEach(onLoaded);
  if (report.failure !== undefined) throw report.failure;
  return report.loaded;
}

async function load(
  cli: DockerCli,
  running: RunningCli,
  chunks: LentChunks,
): Promise<LoadReport & { readonly failure?: HandoverError }> {
  const { exitCode, stdout, stderr } = await feedCommand(running, chunks);
  const report = parseLoadOutput(`${stdout}\n${stderr}`);
  if (exitCode === 0 && report.unpackError === undefined) return report;
  const output = { exitCode, stdout, stderr: report.unpackError ?? stderr };
  return { ...report, failure: failedCommand(cli, 'load-failed', ['load'], output) };
}

/** Gives a command all the chunks as its input, as fast as it takes them. An error of theirs kills it, and is rethrown. */
export async function feedCommand(running: RunningCli, chunks: LentChunks): Promise<CliOutput> {
  const said = Promise.all([text(running.stdout), text(running.stderr)]);
  const ended = new AbortController();
  void running.exit.then(() => {
    ended.abort();
  });
  try {
    await writeChunks(running.stdin, chunks, ended.signal);
  } catch (error) {
    // Killed before its input ends, so that it can't take what it has for the whole.
    running.kill();
    await running.exit;
    throw error;
  }
  running.stdin.end();
  const exitCode = await running.exit;
  const [stdout, stderr] = await said;
  return { exitCode, stdout, stderr };
}

// An engine on this machine asks at once; one that is elsewhere may wait for its own loopback interface to answer.
const reachMs = 10_000;

/**
 * Has the engine pull an image by its digest from a registry that is watched.
 * @param pull does it until the signal is aborted; returns the engine's words when it can't
 * @throws HandoverError `load-failed` when the engine can't, or doesn't ask within ten seconds; what `failed` settles with
 */
export async function pullWatched(
  { reached, failed }: PullWatch,
  pull: (signal: AbortSignal) => Promise<string | undefined>,
): Promise<void> {
  const ends = new AbortController();
  const timer = setTimeout(() => {
    ends.abort(new Error('it did not ask'));
  }, reachMs);
  void reached.then(() => {
    clearTimeout(timer);
  });
  let failure: unknown;
  void failed.then((error) => {
    failure = error;
    ends.abort(error);
  });
  const refusal = await pull(ends.signal).finally(() => {
    clearTimeout(timer);
  });
  if (failure !== undefined) throw asError(failure);
  if (refusal === undefined) return;
  throw new HandoverError(
    'load-failed',
    `The engine can't fetch layers from this step: ${refusal || 'it did not ask'}.`,
    'Set `overlap: false`.',
  );
}

function pullByCommand(cli: DockerCli, reference: string, registry: PullWatch): Promise<void> {
  return pullWatched(registry, async (signal) => {
    const running = await cli.start(['pull', '--quiet', reference], { signal });
    running.stdin.end();
    const output = await outputOf(running);
    return output.exitCode === 0 ? undefined : lastLine(output);
  });
}

/** What a save command writes. Throws `image-not-found` while iterating. */
export async function* saveFrom(cli: DockerCli, args: readonly string[], tempDir?: string): AsyncGenerator<Buffer> {
  const running = await cli.start(args, { tempDir });
  const said = text(running.stderr);
  running.stdin.end();
  let finished = false;
  try {
    const stdout: AsyncIterable<Buffer> = running.stdout;
    yield* stdout;
    const exitCode = await running.exit;
    finished = true;
    if (exitCode !== 0) throw failedSave(cli, args, { exitCode, stdout: '', stderr: await said });
  } finally {
    if (!finished) running.kill();
    await running.exit;
  }
}

function failedSave(cli: DockerCli, args: readonly string[], output: CliOutput): HandoverError {
  // moby layer/empty.go: the classic store has no content for an image without layers.
  if (!output.stderr.includes('empty export')) return failedCommand(cli, 'image-not-found', args, output);
  return new HandoverError(
    'unsupported-host',
    `The classic image store of this engine can't save an image without layers (FROM scratch and only LABEL, ENV or the like): ${lastLine(output)}`,
    'Let export-image build it, with `- uses: docker/setup-buildx-action@v4` before it: then the image never passes ' +
      'through that store. Or use an engine with the containerd image store.',
  );
}

const architectures = ['amd64', 'arm64'];

/**
 * The engine that was given, if it runs what can be handed over: Linux containers on amd64 or arm64.
 * @throws HandoverError `unsupported-host` naming what it runs
 */
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
