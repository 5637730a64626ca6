import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { words } from '../../shared/base/markdown.ts';
import { addSummary } from '../../shared/runner/outputs.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'summary-'));
});
afterEach(() => {
  jest.restoreAllMocks();
  delete process.env['GITHUB_STEP_SUMMARY'];
  rmSync(folder, { recursive: true, force: true });
});

test('a summary that is too large for GitHub causes a warning, and the existing content is kept', async () => {
  const path = join(folder, 'summary.md');
  writeFileSync(path, 'of the step');
  process.env['GITHUB_STEP_SUMMARY'] = path;
  const written = jest.spyOn(process.stdout, 'write').mockReturnValue(true);
  await addSummary(words('é'.repeat(524_288)));
  expect(written.mock.calls.join()).toMatch(/::warning::The job summary could not be written: .*1 MiB/);
  expect(readFileSync(path, 'utf8')).toBe('of the step');
  await addSummary(words('x'.repeat(1_000_000)));
  expect(statSync(path).size).toBeGreaterThan(1_000_000);
});
