import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

/** A step to run the way the workflow runner does: defaults from action.yml, `INPUT_*`, and files for outputs and the summary. */
export interface StepRequest {
  /** Folder of the action below the project, such as `export-image`; `.` is the joined action. */
  readonly action: string;
  readonly inputs?: Readonly<Record<string, string>>;
  /** Added to the caller's environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Values of `${{ … }}` expressions in defaults. */
  readonly expressions?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Called with each piece of the log as it arrives. */
  readonly onOutput?: (text: string) => void;
  readonly signal?: AbortSignal;
  /** Signal for the step when `signal` is aborted. Default: SIGINT, the first signal of the runner. */
  readonly killWith?: NodeJS.Signals;
  /** A command that runs node, such as `unshare`. */
  readonly wrapper?: readonly string[];
}

export interface StepOutcome {
  readonly exitCode: number;
  readonly log: string;
  readonly outputs: Readonly<Record<string, string>>;
  readonly summary: string;
  /** `::error …::` and similar commands, decoded the way the runner shows them. */
  readonly annotations: readonly { readonly level: string; readonly title: string; readonly message: string }[];
  /** Peak resident size of the step's own process, in kB. */
  readonly peakMemoryKb: number;
  /** Files that the step left in RUNNER_TEMP. */
  readonly leftInTemp: readonly string[];
}

export const projectRoot = fileURLToPath(new URL('..', import.meta.url));

/** Runs one step of a built action in a child process with this process's Node. */
export async function runStep(request: StepRequest): Promise<StepOutcome> {
  const files = await mkdtemp(join(tmpdir(), 'runner-'));
  const temp = await mkdtemp(join(tmpdir(), 'runner-temp-'));
  const outputFile = join(files, 'output');
  const summaryFile = join(files, 'summary');
  await Promise.all([writeFile(outputFile, ''), writeFile(summaryFile, '')]);
  try {
    const definition = await readAction(request.action);
    const { exitCode, log, peakMemoryKb } = await runNode(definition.main, request, {
      ...process.env,
      // This ID belongs to the job that runs the tests.
      ACTIONS_ORCHESTRATION_ID: undefined,
      GITHUB_ACTIONS: 'true',
      GITHUB_OUTPUT: outputFile,
      GITHUB_STEP_SUMMARY: summaryFile,
      RUNNER_TEMP: temp,
      ...inputVariables(definition.defaults, request),
      ...request.env,
    });

    return {
      exitCode,
      log,
      peakMemoryKb,
      outputs: parseOutputs(await readFile(outputFile, 'utf8')),
      summary: await readFile(summaryFile, 'utf8'),
      annotations: parseAnnotations(log),
      leftInTemp: await readdir(temp),
    };
  } finally {
    await Promise.all([files, temp].map((path) => rm(path, { recursive: true, force: true })));
  }
}

interface Definition {
  readonly main: string;
  readonly defaults: Readonly<Record<string, string>>;
}

const definitions = new Map<string, Promise<Definition>>();

function readAction(action: string): Promise<Definition> {
  const known = definitions.get(action) ?? parsedAction(action);
  definitions.set(action, known);
  return known;
}

async function parsedAction(action: string): Promise<Definition> {
  const folder = join(projectRoot, action);
  const yaml: unknown = parse(await readFile(join(folder, 'action.yml'), 'utf8'));
  const main = member(member(yaml, 'runs'), 'main');
  const inputs = member(yaml, 'inputs');
  if (typeof main !== 'string' || typeof inputs !== 'object' || inputs === null)
    throw new Error(`${action}/action.yml`);
  const defaults = Object.entries(inputs).map(([name, input]) => [name, text(member(input, 'default'))] as const);
  return { main: join(folder, main), defaults: Object.fromEntries(defaults) };
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function member(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  const members: ReadonlyMap<string, unknown> = new Map(Object.entries(value));
  return members.get(name);
}

function inputVariables(defaults: Definition['defaults'], request: StepRequest): Readonly<Record<string, string>> {
  const expand = (text: string): string =>
    text.replace(/\$\{\{\s*(.*?)\s*\}\}/g, (_, expression: string) => request.expressions?.[expression] ?? '');
  const expanded = Object.entries(defaults).map(([name, value]) => [name, expand(value)] as const);
  const all = { ...Object.fromEntries(expanded), ...request.inputs };
  return Object.fromEntries(Object.entries(all).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value]));
}

function runNode(
  main: string,
  request: StepRequest,
  env: Readonly<Record<string, string | undefined>>,
): Promise<{ exitCode: number; log: string; peakMemoryKb: number }> {
  const present = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined));
  const command = [...(request.wrapper ?? []), process.execPath, main];
  const child = spawn(command[0] ?? '', command.slice(1), {
    cwd: request.cwd ?? projectRoot,
    env: present,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const timers: NodeJS.Timeout[] = [];
  const cancel = (): void => {
    child.kill(request.killWith ?? 'SIGINT');
    // The runner cancels a step in this order (actions/runner, src/Runner.Sdk/ProcessInvoker.cs).
    timers.push(
      setTimeout(() => child.kill('SIGTERM'), 7500),
      setTimeout(() => child.kill('SIGKILL'), 10_000),
    );
  };
  request.signal?.addEventListener('abort', cancel, { once: true });
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      request.onOutput?.(chunk.toString());
    });
  }
  let peakMemoryKb = 0;
  const watch = setInterval(() => {
    // proc(5): VmHWM is the peak resident size so far.
    if (!existsSync(`/proc/${String(child.pid)}/status`)) return;
    const status = readFileSync(`/proc/${String(child.pid)}/status`, { encoding: 'utf8', flag: 'r' });
    peakMemoryKb = Math.max(peakMemoryKb, Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? 0));
  }, 100);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', () => {
      clearInterval(watch);
      timers.forEach(clearTimeout);
    });
    child.on('close', (code) => {
      resolve({ exitCode: code ?? -1, log: Buffer.concat(chunks).toString(), peakMemoryKb });
    });
  });
}

/** Reads GITHUB_OUTPUT (`name<<delimiter`, lines, `delimiter`). A later value wins. */
export function parseOutputs(text: string): Readonly<Record<string, string>> {
  const outputs = text.matchAll(/^([^\n<]+)<<(\S+)\r?\n([\s\S]*?)\r?\n?^\2$/gm);
  const pairs = [...outputs].map(([, name = '', , value = '']): readonly [string, string] => [
    name,
    value.replace(/\r?\n$/, ''),
  ]);
  return Object.fromEntries(pairs);
}

function parseAnnotations(log: string): StepOutcome['annotations'] {
  const decode = (text: string): string =>
    text
      .replaceAll('%0A', '\n')
      .replaceAll('%0D', '\r')
      .replaceAll('%3A', ':')
      .replaceAll('%2C', ',')
      .replaceAll('%25', '%');
  return [...log.matchAll(/^::(error|warning|notice)(?: title=([^:]*))?::(.*)$/gm)].map(
    ([, level, title, message]) => ({
      level: level ?? '',
      title: decode(title ?? ''),
      message: decode(message ?? ''),
    }),
  );
}
