import { group, info, notice, warning } from '@actions/core';
import type { Log } from '../log.ts';
import { progressTo } from './progress.ts';

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
  progress: progressTo(info),
};
