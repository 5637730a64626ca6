import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { addAbortListener, once } from 'node:events';
import { text } from 'node:stream/consumers';
import { type ExecOutput, getExecOutput } from '@actions/exec';
import { which } from '@actions/io';
import { killChildren, killTree } from '../base/forced-end.ts';
import { HandoverError, messageOf } from '../base/errors.ts';
import { quoteError, quoteForeign } from '../base/text.ts';
import { type LentChunks, writeChunks } from '../bytes/chunks.ts';
import type { EngineName } from '../image/host.ts';
import { type Deadlines, deadlines } from './deadlines.ts';

/** The output and the exit code of a command that has ended. */
export type CliOutput = Readonly<ExecOutput>;

/** A command that is running, with its streams. */
type RunningCli = Readonly<ReturnType<typeof running>>;

export type CommandName = EngineName | 'ctr';

/** Runs docker, podman or ctr. The caller checks the exit code. */
export interface DockerCli {
  readonly program: CommandName;
  /** Throws `docker-unavailable` if there is no such command. */
  available(): Promise<void>;
  /** Runs a short command to its end, in `workdir` or the step's folder. Throws `docker-unavailable` if it can't be started. */
  query(args: readonly string[], workdir?: string): Promise<CliOutput>;
  /** The same command for cleanup. It works after a cancel, with little time for each query. */
  readonly forCleanUp: DockerCli;
  /** Starts a long command. Throws `docker-unavailable` if it can't be started. */
  start(args: readonly string[], options?: StartOptions): Promise<RunningCli>;
}

interface StartOptions {
  /** Folder for the command's temporary files. */
  readonly tempDir?: string | undefined;
  readonly workdir?: string | undefined;
  /** Kills the command when it is aborted. */
  readonly signal?: AbortSignal;
}

// The times in ms that a command has to end after SIGTERM, and its streams after its end.
const killMs = 3000;
const streamMs = 500;

/** @param signal ends running commands when it is aborted */
export function dockerCli(signal: AbortSignal, name: CommandName = 'docker'): DockerCli {
  let found: Promise<string> | undefined;
  const program = (): Promise<string> => (found ??= findProgram(name));
  const programFor = async ({ signal: ends }: Deadlines): Promise<string> => {
    ends.throwIfAborted();
    const path = await program();
    // Aborted during the lookup: nothing would end the command.
    ends.throwIfAborted();
    return path;
  };
  const cliWithin = (times: Deadlines): DockerCli => ({
    program: name,
    available: async () => {
      await program();
    },
    query: async (args, workdir) => {
      const path = await programFor(times);
      const options = { silent: true, ignoreReturnCode: true, ...(workdir === undefined ? {} : { cwd: workdir }) };
      // @actions/exec splits its first argument at spaces.
      const asked = getExecOutput(`"${path}"`, [...args], options);
      return times.within(asked, () => {
        // @actions/exec can't end a command.
        killChildren(args);
      });
    },
    start: async (args, { tempDir, workdir, signal: kills } = {}) => {
      const path = await programFor(times);
      // `env` replaces itself with the command, so the child is the command.
      const [file, before] = tempDir === undefined ? [path, []] : ['env', [`TMPDIR=${tempDir}`, path]];
      const child = spawn(file, [...before, ...args], { cwd: workdir });
      await once(child, 'spawn').catch((error: unknown) => {
        throw unavailable(name, messageOf(error), error);
      });
      return running(child, times.signal, kills);
    },
    get forCleanUp() {
      return cliWithin(times.forCleanUp);
    },
  });
  return cliWithin(deadlines(signal, name));
}

function running(child: ChildProcessWithoutNullStreams, signal: AbortSignal, kills?: AbortSignal) {
  const { stdin, stdout, stderr } = child;
  const kill = (): void => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) killTree(child.pid);
  };
  const stop = (): void => {
    child.kill('SIGTERM');
    setTimeout(kill, killMs).unref();
  };
  const listening = new DisposableStack();
  listening.use(addAbortListener(signal, stop));
  if (kills !== undefined) listening.use(addAbortListener(kills, kill));
  // If a command ends before it has read its input, its exit code counts, not the broken pipe.
  stdin.on('error', () => undefined);
  // A command that is ended by a signal counts as 1.
  const exit = new Promise<number>((resolve) => {
    const end = (code: number | null): void => {
      listening.dispose();
      resolve(code ?? 1);
    };
    child.on('close', end);
    // Its children may keep its streams open.
    child.on('exit', (code) => {
      if (!signal.aborted) return;
      setTimeout(() => {
        for (const stream of [stdout, stderr]) stream.destroy();
        end(code);
      }, streamMs).unref();
    });
  });
  return { stdin, stdout, stderr, exit, kill };
}

async function findProgram(name: CommandName): Promise<string> {
  const path = await which(name, false);
  if (path === '') throw unavailable(name, `there is no ${name} on PATH`);
  return path;
}

const runnerHints = {
  docker: ['Docker', 'Use a runner with Docker, such as ubuntu-latest (ubuntu-slim and macOS runners have no engine).'],
  podman: ['Podman', 'Install podman in an earlier step (apt-get install podman), or remove `engine: podman`.'],
  ctr: ['containerd’s ctr', 'Install containerd on this runner. It contains ctr.'],
} as const;

function unavailable(name: CommandName, why: string, cause?: unknown): HandoverError {
  const [title, hint] = runnerHints[name];
  return new HandoverError('docker-unavailable', `${title} can't be run: ${why}.`, hint, cause);
}

/** Waits for the end of a command, and returns its output. An error of its input's chunks kills it and is rethrown. */
export async function outputOf(running: RunningCli, input?: LentChunks): Promise<CliOutput> {
  const { stdin, stdout, stderr, exit } = running;
  const printed = Promise.all([text(stdout), text(stderr), exit]);
  printed.catch(() => undefined); // thrown at the end, unless the input fails
  const ended = new AbortController();
  void exit.then(() => ended.abort());
  try {
    if (input !== undefined) await writeChunks(stdin, input, ended.signal);
  } catch (error) {
    // Killed before its input ends, so that it can't accept a part as the whole.
    running.kill();
    await exit;
    throw error;
  }
  stdin.end();
  const [output, errors, exitCode] = await printed;
  return { exitCode, stdout: output, stderr: errors };
}

/** Returns the last line of a command's output, which shows its failure. */
export function lastLine({ stdout, stderr }: CliOutput): string {
  const said = stderr.trim() === '' ? stdout : stderr;
  return quoteError(said.trim().split('\n').at(-1) ?? '');
}

/** Returns the line with a command's error, or its first line. Later lines are often about its usage. */
export function causeLine({ stdout, stderr }: CliOutput): string {
  const lines = `${stderr}\n${stdout}`.split('\n').filter((line) => line.trim() !== '');
  return quoteError(lines.find((line) => line.startsWith('ERROR: ')) ?? lines[0] ?? '');
}

/** Throws `docker-unavailable` if `docker` is podman's, as in the package podman-docker. It costs a process: call it after a failure. */
export async function refusePodman(cli: DockerCli): Promise<void> {
  const { stdout } = await cli.query(['--version']);
  const version = /^podman version .+/m.exec(stdout)?.[0];
  if (version === undefined) return;
  throw new HandoverError(
    'docker-unavailable',
    `The command \`docker\` on this runner is podman (${quoteForeign(version)}).`,
    'Set `engine: podman`, or use a runner with Docker. With podman, build in an earlier step, and set `source-image`.',
  );
}

const hints = {
  'load-failed': (program: CommandName) =>
    `Check for a full disk or an engine of another version on this runner: ${program} ${program === 'ctr' ? 'version' : 'info'}; df -h.`,
  'image-missing': (program: CommandName) => `Check the engine: ${program} image ls.`,
  'image-not-found': (program: CommandName) => `Check that the image is in this engine: ${program} image ls.`,
} as const;

// moby layer/layer_store.go, maxLayerDepth
const tooManyLayers = 'max depth exceeded';
const tooManyLayersHint =
  "The engine's classic image store accepts 125 layers at most, and the image has more. Build it with fewer: join RUN and COPY " +
  'instructions, or copy the result to a last stage (COPY --from). The containerd image store has no such limit.';

/** The codes of failed work of an engine. */
export type FailureCode = keyof typeof hints;

/** Runs a short command, and returns what it printed. Throws `code` if it fails. */
export async function must(cli: DockerCli, code: FailureCode, args: readonly string[]): Promise<string> {
  const output = await cli.query(args);
  if (output.exitCode === 0) return output.stdout;
  throw failedCommand(cli, code, args, output);
}

/** Creates the error for a failed command, with its last line. */
export function failedCommand(
  { program }: DockerCli,
  code: FailureCode,
  args: readonly string[],
  output: CliOutput,
): HandoverError {
  const command = quoteForeign(`${program} ${args.join(' ')}`);
  return failedWork(program, code, `${command} failed with exit code ${String(output.exitCode)}`, lastLine(output));
}

/** Creates the error for failed work of an engine (`docker load failed`), with the engine's message. */
export function failedWork(program: CommandName, code: FailureCode, what: string, said: string): HandoverError {
  const hint = said.includes(tooManyLayers) ? tooManyLayersHint : hints[code](program);
  return new HandoverError(code, `${what}: ${said}`, hint);
}
