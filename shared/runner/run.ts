import { error as annotate, group, info, notice, warning } from '@actions/core';
import { HandoverError, messageOf } from '../base/errors.ts';
import { endByForce } from '../base/forced-end.ts';
import type { Log, TotalBytes } from '../base/log.ts';
import { code, type Markdown, prose, safe, words } from '../base/markdown.ts';
import { type JobContext, jobContext, requireRunnerFiles } from './context.ts';
import { explainRunner } from '../image/host.ts';
import { formatBytes, formatDuration, harmlessLines } from '../base/text.ts';
import type { Inputs } from './inputs.ts';
import { addSummary } from './outputs.ts';

export interface Step {
  readonly context: JobContext;
  readonly log: Log;
  /** Aborted when the job is cancelled or the time is up. */
  readonly signal: AbortSignal;
  /** Limits the step's time to the input `timeout-minutes`, which it returns. When the time is up, the step ends as after a cancel. */
  readonly limit: (inputs: Inputs) => number;
}

// Grace period after the time is up. Then the process exits even if cleanup hangs.
const graceMs = 15_000;
// A cancelled step gets SIGINT, 7.5 s later SIGTERM, and is killed after that (actions/runner, src/Runner.Sdk/ProcessInvoker.cs).
const cancelMs = 7_000;

/**
 * Runs a step, and ends the process with 0 or 1. Any error becomes one annotation and a job summary. After a cancel, the step's cleanup
 * runs first.
 */
export async function run(name: string, step: (step: Step) => Promise<void>): Promise<never> {
  const controller = new AbortController();
  const end = (error: HandoverError, withinMs: number): void => {
    if (controller.signal.aborted) return;
    controller.abort(error);
    setTimeout(() => void fail(name, error), withinMs).unref();
  };
  const limit = (inputs: Inputs): number => {
    const minutes = readTimeLimit(inputs);
    setTimeout(() => end(timedOut(minutes), graceMs), minutes * 60_000).unref();
    return minutes;
  };
  const cancel = (signal: NodeJS.Signals): void => {
    end(new HandoverError('cancelled', `The step was cancelled (${signal}).`, 'Run the job again.'), cancelMs);
  };
  // Errors outside of all promises.
  const escaped = (error: unknown): void => void fail(name, error);
  // A closed log is not a failure.
  process.stdout.on('error', () => undefined);
  process.on('uncaughtException', escaped);
  process.on('unhandledRejection', escaped);
  process.on('SIGINT', cancel);
  process.on('SIGTERM', cancel);
  const context = jobContext();
  try {
    requireRunnerFiles();
    await step({ context, log: runnerLog, signal: controller.signal, limit });
    process.exit(0);
  } catch (error) {
    const reason: unknown = controller.signal.reason;
    await fail(name, controller.signal.aborted ? reason : explainRunner(firstError(error), context.runner));
  }
  return process.exit(1);
}

/** Reads the minutes that a step may take: at most 5 days, as long as a job may run on a self-hosted runner. @internal */
export function readTimeLimit(inputs: Inputs): number {
  return inputs.decimal('timeout-minutes', 0.001, 7200);
}

function timedOut(minutes: number): HandoverError {
  return new HandoverError(
    'timed-out',
    `The step did not finish within ${String(minutes)} minutes (\`timeout-minutes\`).`,
    'The log shows what it waited for. Raise `timeout-minutes` for a large image on a slow connection, otherwise run the ' +
      'job again.',
  );
}

async function fail(name: string, error: unknown): Promise<void> {
  try {
    await report(name, error);
  } finally {
    endByForce();
    process.exit(1);
  }
}

/** Returns the first error. Errors of the cleanup after it are only logged (ECMA-262, SuppressedError). */
function firstError(error: unknown): unknown {
  if (!(error instanceof SuppressedError)) return error;
  runnerLog.info(`Cleanup also failed: ${messageOf(firstError(error.error))}`);
  return firstError(error.suppressed);
}

async function report(name: string, error: unknown): Promise<void> {
  const isKnown = error instanceof HandoverError;
  if (!isKnown && error instanceof Error && error.stack !== undefined) runnerLog.info(error.stack);
  const [title, text] = isKnown
    ? [error.code, `${error.message}\nNext step: ${error.hint}\n(code ${error.code}; see TROUBLESHOOTING.md)`]
    : ['unexpected error', `${messageOf(error)}\nThis is a bug in ${name}. Please report it with the log.`];
  annotate(text, { title: `${name}: ${title}` });
  await addSummary(failureSummary(name, error));
}

/** Returns the job summary of a failed step. @internal */
export function failureSummary(name: string, error: unknown): Markdown {
  if (!(error instanceof HandoverError)) return safe`### ❌ ${words(name)} failed\n\n${prose(messageOf(error))}\n`;
  return safe`### ❌ ${words(name)}: ${code(error.code)}\n\n${prose(error.message)}\n\n**Next step:** ${prose(error.hint)}\n`;
}

const everyMs = 5000;

/**
 * Counts bytes during long work, and logs them every five seconds and at the end. The last line has no total, which was only an estimate.
 * @param print called with each line
 * @internal
 */
export function progressTo(print: (line: string) => void): Log['progress'] {
  return async (what, total, work) => {
    const began = performance.now();
    let bytes = 0;
    const soFar = (verb: string, of = ''): void => {
      const ms = performance.now() - began;
      const speed = bytes < 1e6 || ms < 1 ? '' : `, ${(bytes / 1000 / ms).toFixed(0)} MB/s`;
      print(`${what}: ${verb}${formatBytes(bytes)}${of} in ${formatDuration(ms)}${speed}`);
    };
    const timer = setInterval(() => soFar('', share(bytes, total)), everyMs);
    timer.unref();
    try {
      const result = await work((more) => void (bytes += more));
      if (bytes === 0) print(`${what}: nothing`);
      else soFar('done, ');
      return result;
    } catch (error) {
      if (bytes > 0) soFar('broke off after ', share(bytes, total));
      throw error;
    } finally {
      clearInterval(timer);
    }
  };
}

/** Returns the share of the total; empty if there are more bytes than that, such as after a retry. */
function share(bytes: number, total: TotalBytes): string {
  if (total === 'unknown') return '';
  if (typeof total === 'object') return bytes > total.atMost ? '' : ` of at most ${formatBytes(total.atMost)}`;
  return bytes > total ? '' : ` of ${formatBytes(total)} (${percent(bytes, total)})`;
}

function percent(bytes: number, total: number): string {
  return total === 0 ? '100 %' : `${String(Math.floor((100 * bytes) / total))} %`;
}

// Much of the log is foreign text: lines of a build, messages of an engine, names in an artifact.
function printLines(message: string): void {
  info(harmlessLines(message));
}

/** The log of a workflow step. Chapters fold, notices and warnings become annotations. */
const runnerLog: Log = {
  info: printLines,
  notice: (message) => notice(message),
  warning: (message) => warning(message),
  chapter: group,
  progress: progressTo(printLines),
};
