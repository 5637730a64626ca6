import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { goPart } from '../../dev/go-parts.ts';
import { spawnOwn } from '../../dev/own-processes.ts';
import { isObject, type JsonObject, parseJson, stringOr } from '../../shared/base/json.ts';

/** The outcome of one job, or of one leg of a matrix. */
export interface JobRun {
  readonly id: string;
  /** Values of the leg, keyed as in the matrix. */
  readonly matrix: Readonly<Record<string, string>>;
  /** Undefined for a skipped job. */
  readonly result: string | undefined;
  /** Output of its steps, with the runner's own lines. */
  readonly log: string;
  /** The job summary: what each step wrote, in order. */
  readonly summary: string;
  /** Errors, warnings and notices of its steps. */
  readonly annotations: readonly { readonly level: string; readonly title: string; readonly message: string }[];
  /** Result of each executed step, keyed by its name. A step without one is keyed by its `uses` or `run`. */
  readonly steps: ReadonlyMap<string, string>;
}

export interface WorkflowRun {
  readonly succeeded: boolean;
  readonly jobs: readonly JobRun[];
  /** The whole output of act. */
  readonly log: string;
}

export interface ActCall {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** The file that receives the output in readable form. */
  readonly logFile: string;
  /** Cancels the run. */
  readonly signal?: AbortSignal;
}

/** Runs nektos/act and reads the result of each job from its log. */
export async function runAct({ args, env, cwd, logFile, signal }: ActCall): Promise<WorkflowRun> {
  const child = spawnOwn(`${await goPart('act')}/act`, ['--json', ...args], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (child.stdout === null || child.stderr === null) throw new Error('unreachable: both are pipes');
  signal?.addEventListener('abort', () => child.kill('SIGINT'));
  const jobs = new Map<string, JobLog>();
  const log: string[] = [];
  const read = async (stream: NodeJS.ReadableStream): Promise<void> => {
    for await (const line of createInterface({ input: stream })) log.push(recordLine(line, jobs));
  };
  const [code] = await Promise.all([exitOf(child), read(child.stdout), read(child.stderr)]);
  await writeFile(logFile, `${log.join('\n')}\n`);
  return { succeeded: code === 0, jobs: [...jobs.values()].map(jobRun), log: log.join('\n') };
}

async function exitOf(child: ReturnType<typeof spawnOwn>): Promise<unknown> {
  const [code]: readonly unknown[] = await once(child, 'exit');
  return code;
}

interface JobLog {
  readonly id: string;
  readonly matrix: Readonly<Record<string, string>>;
  result: string | undefined;
  readonly lines: string[];
  readonly summaries: string[];
  readonly annotations: JobRun['annotations'][number][];
  readonly steps: Map<string, string>;
}

function jobRun({ id, matrix, result, lines, summaries, annotations, steps }: JobLog): JobRun {
  return { id, matrix, result, annotations, steps, log: lines.join('\n'), summary: summaries.join('\n') };
}

/** Adds one line of act's log to its job and returns it in readable form. */
function recordLine(line: string, jobs: Map<string, JobLog>): string {
  const entry = line.startsWith('{') ? parseJson(line) : undefined;
  if (!isObject(entry)) return line;
  const message = stringOr(entry['msg'], '').replace(/\n$/, '');
  const name = stringOr(entry['job'], '').trim();
  if (name === '') return message;
  const job = jobFor(jobs, name, entry);
  job.lines.push(message);
  if (typeof entry['jobResult'] === 'string') job.result = entry['jobResult'];
  if (typeof entry['stepResult'] === 'string' && entry['stage'] === 'Main')
    job.steps.set(stringOr(entry['step'], ''), entry['stepResult']);
  const command = stringOr(entry['command'], '');
  if (command === 'summary') job.summaries.push(stringOr(entry['content'], ''));
  if (['error', 'warning', 'notice'].includes(command)) job.annotations.push(annotation(command, entry));
  return `[${name}] ${message}`;
}

function jobFor(jobs: Map<string, JobLog>, name: string, entry: JsonObject): JobLog {
  const existing = jobs.get(name);
  if (existing !== undefined) return existing;
  const matrix = isObject(entry['matrix']) ? entry['matrix'] : {};
  const job: JobLog = {
    id: stringOr(entry['jobID'], ''),
    matrix: Object.fromEntries(Object.entries(matrix).map(([key, value]) => [key, String(value)])),
    result: undefined,
    lines: [],
    summaries: [],
    annotations: [],
    steps: new Map(),
  };
  jobs.set(name, job);
  return job;
}

function annotation(level: string, entry: JsonObject): JobRun['annotations'][number] {
  const properties = isObject(entry['kvPairs']) ? entry['kvPairs'] : {};
  return { level, title: stringOr(properties['title'], ''), message: stringOr(entry['arg'], '') };
}
