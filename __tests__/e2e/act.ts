import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { goPart } from '../../dev/go-parts.ts';
import { spawnOwn } from '../../dev/own-processes.ts';
import { isObject, type JsonObject, parseJson, stringOr } from '../../shared/base/json.ts';

/** What became of one job, or of one leg of a matrix. */
export interface JobRun {
  readonly id: string;
  /** The leg's values, by the matrix's keys. */
  readonly matrix: Readonly<Record<string, string>>;
  /** Undefined for a job that never ended: it was skipped. */
  readonly result: string | undefined;
  /** What its steps printed, and what the runner said of them. */
  readonly log: string;
  /** What its steps wrote to the job's summary, one after the other. */
  readonly summary: string;
  /** Errors, warnings and notices of its steps. */
  readonly annotations: readonly { readonly level: string; readonly title: string; readonly message: string }[];
  /** How each step ended that ran, by its name, which is `uses` or `run` where it has none. */
  readonly steps: ReadonlyMap<string, string>;
}

export interface WorkflowRun {
  readonly succeeded: boolean;
  readonly jobs: readonly JobRun[];
  /** All that act printed, line by line. */
  readonly log: string;
}

export interface ActCall {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Where what it printed is kept, for people. */
  readonly logFile: string;
}

/** Runs nektos/act to its end, and reads from its log what became of each job. */
export async function runAct({ args, env, cwd, logFile }: ActCall): Promise<WorkflowRun> {
  const child = spawnOwn(`${await goPart('act')}/act`, ['--json', ...args], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (child.stdout === null || child.stderr === null) throw new Error('unreachable: both are pipes');
  const jobs = new Map<string, Gathered>();
  const log: string[] = [];
  const read = async (stream: NodeJS.ReadableStream): Promise<void> => {
    for await (const line of createInterface({ input: stream })) log.push(tell(line, jobs));
  };
  const [code] = await Promise.all([exitOf(child), read(child.stdout), read(child.stderr)]);
  await writeFile(logFile, `${log.join('\n')}\n`);
  return { succeeded: code === 0, jobs: [...jobs.values()].map(jobRun), log: log.join('\n') };
}

async function exitOf(child: ReturnType<typeof spawnOwn>): Promise<unknown> {
  const [code]: readonly unknown[] = await once(child, 'exit');
  return code;
}

interface Gathered {
  readonly id: string;
  readonly matrix: Readonly<Record<string, string>>;
  result: string | undefined;
  readonly lines: string[];
  readonly summaries: string[];
  readonly annotations: JobRun['annotations'][number][];
  readonly steps: Map<string, string>;
}

function jobRun({ id, matrix, result, lines, summaries, annotations, steps }: Gathered): JobRun {
  return { id, matrix, result, annotations, steps, log: lines.join('\n'), summary: summaries.join('\n') };
}

/** Takes one line of act's log to its job, and returns it as people read it. */
function tell(line: string, jobs: Map<string, Gathered>): string {
  const entry = line.startsWith('{') ? parseJson(line) : undefined;
  if (!isObject(entry)) return line;
  const message = stringOr(entry['msg'], '').replace(/\n$/, '');
  const name = stringOr(entry['job'], '').trim();
  if (name === '') return message;
  const job = gather(jobs, name, entry);
  job.lines.push(message);
  if (typeof entry['jobResult'] === 'string') job.result = entry['jobResult'];
  if (typeof entry['stepResult'] === 'string' && entry['stage'] === 'Main')
    job.steps.set(stringOr(entry['step'], ''), entry['stepResult']);
  const command = stringOr(entry['command'], '');
  if (command === 'summary') job.summaries.push(stringOr(entry['content'], ''));
  if (['error', 'warning', 'notice'].includes(command)) job.annotations.push(annotation(command, entry));
  return `[${name}] ${message}`;
}

function gather(jobs: Map<string, Gathered>, name: string, entry: JsonObject): Gathered {
  const known = jobs.get(name);
  if (known !== undefined) return known;
  const matrix = isObject(entry['matrix']) ? entry['matrix'] : {};
  const job: Gathered = {
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
