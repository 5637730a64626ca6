import { error as annotate } from '@actions/core';
import { HandoverError, messageOf } from '../base/errors.ts';
import { endByForce } from '../base/forced-end.ts';
import type { Log } from '../base/log.ts';
import { code, type Markdown, prose, safe, words } from '../base/markdown.ts';
import { type JobContext, jobContext, requireRunnerFiles } from './context.ts';
import { explainRunner } from '../image/host.ts';
import { runnerLog } from './log.ts';
import type { Inputs } from './inputs.ts';
import { addSummary } from './outputs.ts';

export interface Step {
  readonly context: JobContext;
  readonly log: Log;
  /** Aborted when the job is cancelled, and when the time is up. */
  readonly signal: AbortSignal;
  /** Limits the step's time to the input `timeout-minutes`, which it returns. When the time is up, the step ends as after a cancel. */
  readonly limit: (inputs: Inputs) => number;
}

// What doesn't end by itself this long after the time is up is left behind: nobody else would end it.
const graceMs = 15_000;
// A cancelled step gets SIGINT, and 7.5 s later SIGTERM; then it is killed without a word (actions/runner, src/Runner.Sdk/ProcessInvoker.cs).
const cancelMs = 7_000;

/**
 * The one error boundary: runs a step, turns whatever it throws into one annotation and a line in the job summary, and
 * ends the process with 0 or 1. On a cancel the step's own clean-up runs first.
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
    setTimeout(() => {
      end(timedOut(minutes), graceMs);
    }, minutes * 60_000).unref();
    return minutes;
  };
  const cancel = (signal: NodeJS.Signals): void => {
    end(new HandoverError('cancelled', `The step was cancelled (${signal}).`, 'Run the job again.'), cancelMs);
  };
  // What escapes every promise must not end the step without a word.
  const escaped = (error: unknown): void => void fail(name, error);
  // A log that nobody reads any more is no failure; to tell of it there would be the next one.
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
    `The step was not done after ${String(minutes)} minutes (\`timeout-minutes\`).`,
    'Look in the log for what it waited for. Raise `timeout-minutes` for a large image on a slow connection, else run the ' +
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

/** What went wrong first; what went wrong while that was cleaned up is only logged (ECMA-262, SuppressedError). */
function firstError(error: unknown): unknown {
  if (!(error instanceof SuppressedError)) return error;
  runnerLog.info(`Cleaning up went wrong, too: ${messageOf(firstError(error.error))}`);
  return firstError(error.suppressed);
}

async function report(name: string, error: unknown): Promise<void> {
  if (!(error instanceof HandoverError)) {
    const stack = error instanceof Error ? error.stack : undefined;
    if (stack !== undefined) runnerLog.info(stack);
    annotate(`${messageOf(error)}\nThis is a defect of ${name}: please report it with the log.`, {
      title: `${name}: unexpected error`,
    });
  } else {
    annotate(`${error.message}\nNext step: ${error.hint}\n(code ${error.code}; see TROUBLESHOOTING.md)`, {
      title: `${name}: ${error.code}`,
    });
  }
  await addSummary(failureSummary(name, error));
}

/** Returns the job summary of a failed step. @internal */
export function failureSummary(name: string, error: unknown): Markdown {
  if (!(error instanceof HandoverError)) return safe`### ❌ ${words(name)} failed\n\n${prose(messageOf(error))}\n`;
  return safe`### ❌ ${words(name)}: ${code(error.code)}\n\n${prose(error.message)}\n\n**Next step:** ${prose(error.hint)}\n`;
}
