import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { getExecOutput } from '@actions/exec';
import { which } from '@actions/io';
import { HandoverError, messageOf } from '../errors.ts';
import { quoteForeign } from '../text.ts';

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

/** The one place that runs docker. The exit code is the caller's to judge. */
export interface DockerCli {
  /** Runs a short command to its end. Throws `docker-unavailable` when docker can't be started. */
  query(args: readonly string[]): Promise<CliOutput>;
  /** Starts a long command. Throws `docker-unavailable` when docker can't be started. */
  start(args: readonly string[]): Promise<RunningCli>;
}

/** @param signal ends running commands when it is aborted */
export function dockerCli(signal: AbortSignal): DockerCli {
  let found: Promise<string> | undefined;
  const program = (): Promise<string> => (found ??= findDocker());
  return {
    query: async (args) => {
      signal.throwIfAborted();
      const options = { silent: true, ignoreReturnCode: true };
      return getExecOutput(quoteProgram(await program()), [...args], options);
    },
    start: async (args) => {
      signal.throwIfAborted();
      const child = spawn(await program(), args, { stdio: ['pipe', 'pipe', 'pipe'] });
      await once(child, 'spawn').catch((error: unknown) => {
        throw unavailable(messageOf(error), error);
      });
      return running(child, signal);
    },
  };
}

// @actions/exec splits its first argument at spaces.
function quoteProgram(path: string): string {
  return `"${path}"`;
}

function running(child: ChildProcess, signal: AbortSignal): RunningCli {
  const { stdin, stdout, stderr } = child;
  if (stdin === null || stdout === null || stderr === null) throw unavailable('it has no streams');
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

async function findDocker(): Promise<string> {
  const path = await which('docker', false);
  if (path === '') throw unavailable('there is no docker on PATH');
  return path;
}

function unavailable(why: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'docker-unavailable',
    `Docker can't be run: ${why}.`,
    'Use a runner with Docker, such as ubuntu-latest (ubuntu-slim and macOS runners have no engine).',
    cause,
  );
}

/** The last thing a command said: what to show of a failure. */
export function lastLine(output: Pick<CliOutput, 'stdout' | 'stderr'>): string {
  const said = output.stderr.trim() === '' ? output.stdout : output.stderr;
  return quoteForeign(said.trim().split('\n').at(-1) ?? '', 500);
}
