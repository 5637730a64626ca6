import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { HandoverError } from '../base/errors.ts';
import { type CliOutput, type DockerCli, lastLine, type RunningCli } from './cli.ts';
import type { EngineName } from '../image/engine-name.ts';
import { engineSocket, inspectedByEngine } from './engine-socket.ts';
import { failedCommand } from './failed-command.ts';
import { pullImage, type WatchedRegistry } from './pull-image.ts';
import {
  type EngineInfo,
  type InspectedImage,
  type LoadReport,
  parseInfo,
  parseInspect,
  parseLoadOutput,
  parseReferences,
  parseWhole,
  referenceFormat,
  saysNoSuchImage,
} from './output.ts';
import { saveImage } from './save-image.ts';
import { requireSupportedEngine } from './supported-engine.ts';

/** What the stories need of a container engine. */
export interface Engine {
  /** The engine's command, for messages. */
  readonly program: EngineName;
  /** A reference as this engine lists it; an image ID stays as it is. */
  nameOf(reference: string): string;
  /** Throws `docker-unavailable` without an engine, `unsupported-host` when it doesn't run Linux containers. */
  info(): Promise<EngineInfo>;
  /** The image under a reference or ID, or undefined. */
  inspect(image: string): Promise<InspectedImage | undefined>;
  /**
   * Feeds a plain tarball to `docker load`, and returns what it says it loaded (references and IDs). `onLoaded` is told
   * of each even when the load fails. Throws `load-failed`; an error of `chunks` ends the load and is rethrown.
   */
  load(chunks: AsyncIterable<Buffer>, onLoaded: (loaded: string) => void): Promise<readonly string[]>;
  /**
   * Pulls an image by digest from a registry that is watched; undefined for an engine that takes whole tarballs only. Throws
   * `load-failed`, and what went wrong with the registry.
   */
  readonly pull: ((reference: string, registry: WatchedRegistry) => Promise<void>) | undefined;
  /** The bytes of `docker save`, each chunk valid until the next is asked for. Throws `image-not-found` or `build-failed`-free transfer errors while iterating. */
  save(image: string): AsyncIterable<Buffer>;
  tag(image: string, reference: string): Promise<void>;
  /**
   * Removes a reference, if it is there; the image goes with its last one. Works also when all else has been cancelled.
   */
  untag(reference: string): Promise<void>;
  /** All local references, each with the image ID it stands for. */
  references(): Promise<ReadonlyMap<string, string>>;
}

export function dockerEngine(cli: DockerCli): Engine {
  let found: Promise<string | undefined> | undefined;
  const socket = (): Promise<string | undefined> => (found ??= engineSocket(cli));
  return {
    program: cli.program,
    nameOf: (reference) => reference,
    info: () => info(cli),
    inspect: (image) => inspect(cli, socket, image),
    load: (chunks, onLoaded) => loadInto(cli, chunks, onLoaded),
    pull: (reference, registry) => pullImage(cli, reference, registry),
    save: (image) => saveImage(cli, image),
    tag: async (image, reference) => {
      await must(cli, ['image', 'tag', image, reference], 'load-failed');
    },
    untag: (reference) => removeReference(cli, reference),
    references: () => references(cli),
  };
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
  const output = await cli.cleanUp(args);
  if (output.exitCode !== 0 && !saysNoSuchImage(output.stderr)) throw failedCommand(cli, 'image-missing', args, output);
}

/** All local references with their image IDs: docker and podman list them alike. */
export async function references(cli: DockerCli): Promise<ReadonlyMap<string, string>> {
  const output = await must(cli, ['image', 'ls', '--no-trunc', '--format', referenceFormat], 'image-missing');
  return parseReferences(output.stdout);
}

async function info(cli: DockerCli): Promise<EngineInfo> {
  const output = await cli.query(['info', '--format', '{{json .}}']);
  const parsed = parseInfo(output.stdout);
  if (output.exitCode !== 0 || parsed === undefined) {
    throw new HandoverError(
      'docker-unavailable',
      `No Docker engine answers: ${lastLine(output) || `docker info exited with ${String(output.exitCode)}`}`,
      'Start the engine, or check DOCKER_HOST and the permission of its socket. ubuntu-slim and macOS runners have none.',
    );
  }
  return requireSupportedEngine(parsed);
}

async function inspect(
  cli: DockerCli,
  socketPath: () => Promise<string | undefined>,
  name: string,
): Promise<InspectedImage | undefined> {
  const image = await inspectWith(cli, ['image', 'inspect', '--format', '{{json .}}', name], parseInspect);
  if (image === undefined || image.isWhole !== undefined) return image;
  const socket = await socketPath();
  const more = socket === undefined ? undefined : await inspectedByEngine(socket, image.imageId, cli.signal);
  return { ...image, isWhole: more === undefined ? undefined : parseWhole(more, image.platform) };
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
  chunks: AsyncIterable<Buffer>,
  onLoaded: (loaded: string) => void,
  tempDir?: string,
): Promise<readonly string[]> {
  const report = await load(cli, await cli.start(['load'], tempDir), chunks);
  report.loaded.forEach(onLoaded);
  if (report.failure !== undefined) throw report.failure;
  return report.loaded;
}

async function load(
  cli: DockerCli,
  running: RunningCli,
  chunks: AsyncIterable<Buffer>,
): Promise<LoadReport & { readonly failure?: HandoverError }> {
  const said = Promise.all([text(running.stdout), text(running.stderr)]);
  const state = { ended: false };
  void running.exit.then(() => (state.ended = true));
  try {
    for await (const chunk of chunks) {
      if (state.ended) break;
      if (!running.stdin.write(chunk)) await Promise.race([once(running.stdin, 'drain'), running.exit]).catch(() => 0);
    }
  } catch (error) {
    // Killed before its input ends, so that the engine can't take what it has for a whole tarball.
    running.kill();
    await running.exit;
    throw error;
  }
  running.stdin.end();
  const exitCode = await running.exit;
  const [stdout, stderr] = await said;
  const report = parseLoadOutput(`${stdout}\n${stderr}`);
  if (exitCode === 0 && report.unpackError === undefined) return report;
  const output = { exitCode, stdout, stderr: report.unpackError ?? stderr };
  return { ...report, failure: failedCommand(cli, 'load-failed', ['load'], output) };
}
