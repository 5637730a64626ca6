import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { getExecOutput } from '@actions/exec';
import { which } from '@actions/io';
import { HandoverError, messageOf } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import type { EngineName } from '../image/host.ts';

export interface CliOutput {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A docker command that is running, with its streams. */
export interface RunningCli {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** The exit code; a command ended by a signal counts as 1. */
  readonly exit: Promise<number>;
  /** Ends the command at once. */
  kill(): void;
}

/** The one place that runs docker or podman. The exit code is the caller's to judge. */
export interface DockerCli {
  /** The command that is run. */
  readonly program: EngineName;
  /** Ends running commands when it is aborted. */
  readonly signal: AbortSignal;
  /** Runs a short command to its end. Throws `docker-unavailable` when docker can't be started. */
  query(args: readonly string[]): Promise<CliOutput>;
  /** The same, also when all else has been cancelled. */
  cleanUp(args: readonly string[]): Promise<CliOutput>;
  /**
   * Starts a long command. Throws `docker-unavailable` when docker can't be started.
   * @param tempDir where the command is to put its temporary files, if that matters
   */
  start(args: readonly string[], tempDir?: string): Promise<RunningCli>;
}

/** @param signal ends running commands when it is aborted */
export function dockerCli(signal: AbortSignal, name: EngineName = 'docker'): DockerCli {
  let found: Promise<string> | undefined;
  const program = (): Promise<string> => (found ??= findProgram(name));
  const toEnd = async (args: readonly string[]): Promise<CliOutput> =>
    getExecOutput(quoteProgram(await program()), [...args], { silent: true, ignoreReturnCode: true });
  return {
    program: name,
    signal,
    query: async (args) => {
      signal.throwIfAborted();
      return toEnd(args);
    },
    cleanUp: toEnd,
    start: async (args, tempDir) => {
      signal.throwIfAborted();
      const path = await program();
      // `env` becomes the command: the child is the command itself, and is ended like it.
      const [file, before] = tempDir === undefined ? [path, []] : ['env', [`TMPDIR=${tempDir}`, path]];
      const child = spawn(file, [...before, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
      await once(child, 'spawn').catch((error: unknown) => {
        throw unavailable(name, messageOf(error), error);
      });
      return running(name, child, signal);
    },
  };
}

// @actions/exec splits its first argument at spaces.
function quoteProgram(path: string): string {
  return `"${path}"`;
}

function running(name: EngineName, child: ChildProcess, signal: AbortSignal): RunningCli {
  const { stdin, stdout, stderr } = child;
  if (stdin === null || stdout === null || stderr === null) throw unavailable(name, 'it has no streams');
  const stop = (): void => {
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), 5000).unref();
  };
  signal.addEventListener('abort', stop, { once: true });
  // A command that ends before it has read all its input is judged by its exit code, not by the broken pipe.
  stdin.on('error', () => undefined);
  const exit = new Promise<number>((resolve) => {
    child.on('close', (code) => {
      signal.removeEventListener('abort', stop);
      resolve(code ?? 1);
    });
  });
  return { stdin, stdout, stderr, exit, kill: () => void child.kill('SIGKILL') };
}

async function findProgram(name: EngineName): Promise<string> {
  const path = await which(name, false);
  if (path === '') throw unavailable(name, `there is no ${name} on PATH`);
  return path;
}

const runnerHints = {
  docker: 'Use a runner with Docker, such as ubuntu-latest (ubuntu-slim and macOS runners have no engine).',
  podman: 'Install podman in a step before (apt-get install podman), or remove `engine: podman`.',
} as const;

function unavailable(name: EngineName, why: string, cause?: unknown): HandoverError {
  const title = name === 'docker' ? 'Docker' : 'Podman';
  return new HandoverError('docker-unavailable', `${title} can't be run: ${why}.`, runnerHints[name], cause);
}

/** All that a running command says, once it has ended. */
export async function outputOf({ stdout, stderr, exit }: RunningCli): Promise<CliOutput> {
  const [said, complained, exitCode] = await Promise.all([text(stdout), text(stderr), exit]);
  return { exitCode, stdout: said, stderr: complained };
}

/** The last thing a command said: what to show of a failure. */
export function lastLine(output: Pick<CliOutput, 'stdout' | 'stderr'>): string {
  const said = output.stderr.trim() === '' ? output.stdout : output.stderr;
  return quoteForeign(said.trim().split('\n').at(-1) ?? '', 500);
}

const hints = {
  'load-failed': (program: EngineName) =>
    `Look for a full disk or an engine of another version on this runner: ${program} info; df -h.`,
  'image-missing': (program: EngineName) => `Check the engine: ${program} image ls.`,
  'image-not-found': (program: EngineName) => `Check that the image is in this engine: ${program} image ls.`,
} as const;

// What the engine's own words mean, where that isn't plain.
const meanings: readonly (readonly [RegExp, string])[] = [
  [
    // moby layer/layer_store.go, maxLayerDepth
    /max depth exceeded/,
    "The engine's classic image store takes 125 layers at most, and the image has more. Build it with fewer: join RUN and COPY " +
      'instructions, or copy the result into a last stage (COPY --from). The containerd image store takes it as it is.',
  ],
];

/** The error for a command that has failed, with the last thing it said. */
export function failedCommand(
  { program }: DockerCli,
  code: keyof typeof hints,
  args: readonly string[],
  output: CliOutput,
): HandoverError {
  const said = lastLine(output);
  const command = quoteForeign(`${program} ${args.join(' ')}`);
  return new HandoverError(
    code,
    `${command} failed with exit code ${String(output.exitCode)}: ${said}`,
    meanings.find(([words]) => words.test(said))?.[1] ?? hints[code](program),
  );
}
