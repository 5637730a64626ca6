import { group, info, notice, warning } from '@actions/core';
import type { Log, TotalBytes } from '../base/log.ts';
import { formatBytes, formatDuration, harmlessLines } from '../base/text.ts';

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
export const runnerLog: Log = {
  info: printLines,
  notice: (message) => notice(message),
  warning: (message) => warning(message),
  chapter: group,
  progress: progressTo(printLines),
};
