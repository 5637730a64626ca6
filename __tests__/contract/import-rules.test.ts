import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { ESLint } from 'eslint';
import { projectRoot } from '../../dev/action-runner.ts';

// Each rule of who may import whom, seen to fail: a line that a file of that room must not have.
let eslint: ESLint;
beforeAll(() => {
  eslint = new ESLint({ cwd: projectRoot, ruleFilter: ({ ruleId }) => ruleId.includes('restricted') });
});

const complaints = async (file: string, line: string): Promise<readonly string[]> => {
  const [result] = await eslint.lintText(`${line}\n`, { filePath: join(projectRoot, file) });
  return (result?.messages ?? []).map(({ ruleId, message }) => ruleId ?? message);
};

test.each([
  ['export-image/main.ts', "import { readFile } from 'node:fs/promises';"],
  ['export-image/inputs.ts', "import { spawn } from 'node:child_process';"],
  ['load-image/inputs.ts', "import { getInput } from '@actions/core';"],
  ['export-image/plan.ts', "import { readFile } from 'node:fs/promises';"],
  ['load-image/verify.ts', "import { dockerEngine } from '../shared/docker/engine.ts';"],
  ['export-image/export-image.ts', "import { info } from '@actions/core';"],
  ['export-image/export-image.ts', "import { dockerEngine } from '../shared/docker/engine.ts';"],
  ['load-image/load-image.ts', "import { runStore } from '../shared/artifacts/run-store.ts';"],
  ['load-image/load-image.ts', "import { spawn } from 'node:child_process';"],
  ['shared/image/record.ts', "import { readFile } from 'node:fs/promises';"],
  ['shared/image/oci-layout.ts', "import { info } from '@actions/core';"],
  ['shared/docker/engine.ts', "import { runStore } from '../artifacts/run-store.ts';"],
  ['shared/docker/engine.ts', "import { info } from '@actions/core';"],
  ['shared/artifacts/run-store.ts', "import { getExecOutput } from '@actions/exec';"],
  ['shared/artifacts/run-store.ts', "import { dockerEngine } from '../docker/engine.ts';"],
  ['shared/action/run.ts', "import { request } from 'undici';"],
  ['shared/action/run.ts', "import { dockerEngine } from '../docker/engine.ts';"],
  ['shared/retry.ts', "import { spawn } from 'node:child_process';"],
  ['shared/image/record.ts', "import { planExport } from '../../export-image/plan.ts';"],
  ['export-image/plan.ts', "import { planLoad } from '../load-image/plan.ts';"],
  ['load-image/plan.ts', "import { planExport } from '../export-image/plan.ts';"],
  ['shared/docker/engine.ts', "export const path = process.env['PATH'];"],
  ['export-image/export-image.ts', "export const path = process.env['PATH'];"],
])('%s must not have: %s', async (file, line) => {
  expect(await complaints(file, line)).toEqual([expect.stringMatching(/restricted/)]);
});

test.each([
  ['shared/docker/cli.ts', "import { spawn } from 'node:child_process';"],
  ['shared/artifacts/http.ts', "import { request } from 'undici';"],
  ['shared/action/run.ts', "import { info } from '@actions/core';"],
  ['export-image/export-image.ts', "import type { Engine } from '../shared/docker/engine.ts';"],
  ['handover/handover.ts', "import { exportImage } from '../export-image/export-image.ts';"],
  ['shared/image/oci-layout.ts', "import { readFile } from 'node:fs/promises';"],
  ['shared/action/context.ts', "export const path = process.env['PATH'];"],
])('%s may have: %s', async (file, line) => {
  expect(await complaints(file, line)).toEqual([]);
});
