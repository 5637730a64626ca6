import { group, info, notice, warning } from '@actions/core';
import type { Log, Progress } from '../log.ts';
import { formatBytes } from '../text.ts';

const progressEveryMs = 5000;

/** The log of a workflow step: chapters fold, notices and warnings become annotations. */
export const runnerLog: Log = {
  info,
  notice: (message) => {
    notice(message);
  },
  warning: (message) => {
    warning(message);
  },
  chapter: group,
  progress,
};

function progress(what: string, totalBytes: number | undefined): Progress {
  const began = performance.now();
  let bytes = 0;
  const tell = (verb: string): void => {
    const seconds = (performance.now() - began) / 1000;
    const of = totalBytes === undefined ? '' : ` of ${formatBytes(totalBytes)} (${percent(bytes, totalBytes)})`;
    const speed = seconds < 0.001 ? '' : `, ${(bytes / 1e6 / seconds).toFixed(0)} MB/s`;
    info(`${what}: ${verb}${formatBytes(bytes)}${of} in ${seconds.toFixed(1)} s${speed}`);
  };
  const timer = setInterval(() => {
    tell('');
  }, progressEveryMs);
  timer.unref();
  return {
    add: (more) => void (bytes += more),
    done: () => {
      clearInterval(timer);
      tell('done, ');
    },
  };
}

function percent(bytes: number, total: number): string {
  return total === 0 ? '100 %' : `${String(Math.floor((100 * bytes) / total))} %`;
}
