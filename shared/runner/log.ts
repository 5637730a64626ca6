import { group, info, notice, warning } from '@actions/core';
import type { Log, TotalBytes } from '../base/log.ts';
import { formatBytes, formatDuration, harmlessLines } from '../base/text.ts';

const everyMs = 5000;

/**
 * Counts bytes while long work runs, and tells of them every five seconds and at the end. Only work that ended well is
 * told to be done, with what has come and nothing else: a total would compare it with what was merely foreseen.
 * @param tell gets each line
 * @internal
 */
export function progressTo(tell: (line: string) => void): Log['progress'] {
  return async (what, total, work) => {
    const began = performance.now();
    let bytes = 0;
    const soFar = (verb: string, of = ''): void => {
      const ms = performance.now() - began;
      const speed = bytes < 1e6 || ms < 1 ? '' : `, ${(bytes / 1000 / ms).toFixed(0)} MB/s`;
      tell(`${what}: ${verb}${formatBytes(bytes)}${of} in ${formatDuration(ms)}${speed}`);
    };
    const timer = setInterval(() => {
      soFar('', share(bytes, total));
    }, everyMs);
    timer.unref();
    try {
      const result = await work((more) => void (bytes += more));
      if (bytes === 0) tell(`${what}: nothing`);
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

/** What the bytes are a part of; nothing once they are more, as when something is sent again. */
function share(bytes: number, total: TotalBytes): string {
  if (total === 'unknown') return '';
  if (typeof total === 'object') return bytes > total.atMost ? '' : ` of at most ${formatBytes(total.atMost)}`;
  return bytes > total ? '' : ` of ${formatBytes(total)} (${percent(bytes, total)})`;
}

function percent(bytes: number, total: number): string {
  return total === 0 ? '100 %' : `${String(Math.floor((100 * bytes) / total))} %`;
}

// Much of what is told is somebody else's text: lines of a build, an engine's words, names in an artifact.
function tellLines(message: string): void {
  info(harmlessLines(message));
}

/** The log of a workflow step: chapters fold, notices and warnings become annotations. */
export const runnerLog: Log = {
  info: tellLines,
  notice: (message) => {
    notice(message);
  },
  warning: (message) => {
    warning(message);
  },
  chapter: group,
  progress: progressTo(tellLines),
};
