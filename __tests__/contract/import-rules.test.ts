import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { ESLint } from 'eslint';
import { projectRoot } from '../../dev/action-runner.ts';

// Shows that each import rule can fail: lines that files of these folders must not have.
let eslint: ESLint;
beforeAll(() => {
  // These rules only check import lines. Without the types of the whole project, a line takes milliseconds.
  eslint = new ESLint({
    cwd: projectRoot,
    ruleFilter: ({ ruleId }) => ruleId.includes('restricted'),
    overrideConfig: { languageOptions: { parserOptions: { projectService: false } } },
  });
});

const complaints = async (file: string, line: string): Promise<readonly string[]> => {
  const [result] = await eslint.lintText(`${line}\n`, { filePath: join(projectRoot, file) });
  return (result?.messages ?? []).map(({ ruleId, message }) => ruleId ?? message);
};

test.each([
  // Entry files only connect parts.
  ['export-image/main.ts', "import { readFile } from 'node:fs/promises';"],
  ['joined/main.ts', "import { info } from '@actions/core';"],
  // Inputs, outputs, summaries and plans are pure.
  ['export-image/inputs.ts', "import { spawn } from 'node:child_process';"],
  ['load-image/inputs.ts', "import { getInput } from '@actions/core';"],
  ['load-image/summary.ts', "import { hostname } from 'node:os';"],
  ['export-image/plan/plan.ts', "import { readFile } from 'node:fs/promises';"],
  ['load-image/plan/plan.ts', "import { commandEngine } from '../../shared/docker/engine.ts';"],
  // The top-level code of an action knows only interfaces. It runs no programs and opens no connections.
  ['load-image/into/prove.ts', "import { commandEngine } from '../../shared/docker/engine.ts';"],
  ['load-image/load-image.ts', "import { runStore } from '../shared/artifacts/service/run-store.ts';"],
  ['load-image/load-image.ts', "import { spawn } from 'node:child_process';"],
  ['load-image/load-image.ts', "import { request } from 'undici';"],
  ['publish-image/publish-image.ts', "import { registryClient } from '../shared/registry/registry-client.ts';"],
  ['shared/artifacts/service/run-store.ts', "import { registryClient } from '../registry/registry-client.ts';"],
  ['shared/artifacts/service/run-store.ts', "import { request } from 'undici';"],
  ['shared/registry/registries.ts', "import { runStore } from '../artifacts/service/run-store.ts';"],
  ['shared/registry/registries.ts', "import { dockerCli } from '../docker/cli.ts';"],
  ['shared/registry/registries.ts', "import { request } from 'undici';"],
  ['shared/registry/registries.ts', "import { spawn } from 'node:child_process';"],
  ['export-image/push.ts', "import { publishImage } from '../publish-image/publish-image.ts';"],
  ['export-image/export-image.ts', "import { info } from '@actions/core';"],
  ['export-image/export-image.ts', "import { commandEngine } from '../shared/docker/engine.ts';"],
  ['export-image/source/from-build.ts', "import { commandEngine } from '../../shared/docker/engine.ts';"],
  ['export-image/export-image.ts', "export const path = process.env['PATH'];"],
  // Other rooms import only the doors of a room; loading into holders is independent of the rest of the action.
  ['load-image/load-image.ts', "import { fetchOverlapped } from './into/overlap.ts';"],
  ['load-image/load-image.ts', "import { loopbackRegistry } from './into/loopback-registry.ts';"],
  ['load-image/into/overlap.ts', "import { loadImage } from '../load-image.ts';"],
  ['load-image/into/overlap.ts', "import { planLoad } from '../plan/plan.ts';"],
  ['load-image/into/overlap.ts', "import { spawn } from 'node:child_process';"],
  // No action imports files of another; the joined action imports the doors of two.
  ['publish-image/publish-image.ts', "import { loadImage } from '../load-image/load-image.ts';"],
  ['publish-image/plan/plan.ts', "import { wishOf } from '../../load-image/plan/plan.ts';"],
  ['joined/joined.ts', "import { publishImage } from '../publish-image/publish-image.ts';"],
  ['joined/joined.ts', "import { loadInto } from '../load-image/into/into-holders.ts';"],
  ['joined/joined.ts', "import { planBake } from '../export-image/plan/bake.ts';"],
  ['export-image/plan/plan.ts', "import { planLoad } from '../../load-image/plan/plan.ts';"],
  ['load-image/load-image.ts', "import { exportImage } from '../export-image/export-image.ts';"],
  ['export-image/export-image.ts', "import { loadOrExport } from '../joined/joined.ts';"],
  // base <- bytes <- image <- tar <- layout: each may import those on its left.
  ['shared/base/json.ts', "import { tempDirs } from '../bytes/files.ts';"],
  ['shared/bytes/files.ts', "import { parseDigest } from '../image/digest.ts';"],
  ['shared/image/record.ts', "import { tarHeader } from '../tar/header.ts';"],
  ['shared/image/record.ts', "import { readFile } from 'node:fs/promises';"],
  ['shared/tar/entries.ts', "import { readLayout } from '../layout/read-layout.ts';"],
  ['shared/tar/entries.ts', "import { open } from 'node:fs/promises';"],
  ['shared/layout/read-layout.ts', "import { commandEngine } from '../docker/engine.ts';"],
  ['shared/layout/read-layout.ts', "import { info } from '@actions/core';"],
  ['shared/image/record.ts', "import { planExport } from '../../export-image/plan/plan.ts';"],
  // All facts about image stores are in one table: no other code compares stores.
  ['shared/docker/engine.ts', "export const isClassic = (store: string): boolean => store === 'classic';"],
  ['load-image/load-image.ts', 'export const has = (store: ImageStore): boolean => store !== imageStores.containerd;'],
  ['shared/base/json.ts', "import { spawn } from 'node:child_process';"],
  ['shared/base/json.ts', "import { request } from 'undici';"],
  // The HTTP client is below the services that use it.
  ['shared/bytes/files.ts', "import { httpClient } from '../http/client.ts';"],
  ['shared/image/record.ts', "import { httpClient } from '../http/client.ts';"],
  ['shared/http/client.ts', "import { parseDigest } from '../image/digest.ts';"],
  ['shared/http/client.ts', "import { resultsService } from '../artifacts/service/results-service.ts';"],
  ['shared/http/client.ts', "import { info } from '@actions/core';"],
  ['load-image/wait.ts', "import { httpClient } from '../shared/http/client.ts';"],
  // The code for opened artifacts uses only basic rooms and the interface of artifacts.
  ['shared/handed-over/find.ts', "import { commandEngine } from '../docker/engine.ts';"],
  ['shared/handed-over/find.ts', "import { runStore } from '../artifacts/service/run-store.ts';"],
  ['shared/handed-over/find.ts', "import { registryClient } from '../registry/registry-client.ts';"],
  ['shared/handed-over/find.ts', "import { info } from '@actions/core';"],
  ['shared/handed-over/identity.ts', "import { readFile } from 'node:fs/promises';"],
  ['shared/tar/entries.ts', "import { resolveArtifact } from '../handed-over/opened-artifact.ts';"],
  // The rooms for engines, artifacts and the runner are independent of each other.
  ['shared/docker/engine.ts', "import { runStore } from '../artifacts/service/run-store.ts';"],
  ['shared/docker/engine.ts', "import { info } from '@actions/core';"],
  ['shared/docker/engine.ts', "import { request } from 'undici';"],
  ['shared/docker/engine.ts', "import { request } from 'node:http';"],
  ['shared/docker/api.ts', "import { spawn } from 'node:child_process';"],
  ['shared/docker/api.ts', "import { runStore } from '../artifacts/service/run-store.ts';"],
  ['shared/docker/engine.ts', "export const path = process.env['PATH'];"],
  ['shared/artifacts/service/run-store.ts', "import { getExecOutput } from '@actions/exec';"],
  ['shared/artifacts/service/run-store.ts', "import { commandEngine } from '../docker/engine.ts';"],
  ['shared/artifacts/service/run-store.ts', "import { info } from '@actions/core';"],
  ['shared/cache/actions-cache.ts', "import { request } from 'undici';"],
  ['shared/cache/actions-cache.ts', "import { readFile } from 'node:fs/promises';"],
  ['shared/cache/actions-cache.ts', "import { dockerCli } from '../docker/cli.ts';"],
  ['shared/artifacts/service/run-store.ts', "import { actionsCache } from '../../cache/actions-cache.ts';"],
  ['export-image/source/build-caches.ts', "import { actionsCache } from '../../shared/cache/actions-cache.ts';"],
  ['shared/runner/run.ts', "import { request } from 'undici';"],
  ['shared/runner/run.ts', "import { getExecOutput } from '@actions/exec';"],
  ['shared/runner/run.ts', "import { commandEngine } from '../docker/engine.ts';"],
])('%s must not have: %s', async (file, line) => {
  expect(await complaints(file, line)).toEqual([expect.stringMatching(/restricted/)]);
});

test.each([
  ['shared/docker/cli.ts', "import { spawn } from 'node:child_process';"],
  ['shared/docker/api.ts', "import { request } from 'node:http';"],
  ['shared/http/client.ts', "import { request } from 'undici';"],
  ['shared/registry/registries.ts', "import { httpClient } from '../http/client.ts';"],
  ['shared/cache/actions-cache.ts', "import { uploadBlob } from '../artifacts/blob/blob-upload.ts';"],
  ['load-image/wait.ts', "import { backoff } from '../shared/http/retry.ts';"],
  ['shared/runner/run.ts', "import { info } from '@actions/core';"],
  ['shared/runner/context.ts', "export const path = process.env['PATH'];"],
  ['shared/layout/read-layout.ts', "import { readFile } from 'node:fs/promises';"],
  ['shared/layout/read-layout.ts', "import { tarHeader } from '../tar/header.ts';"],
  ['export-image/export-image.ts', "import type { Engine } from '../shared/docker/engine.ts';"],
  ['load-image/load-image.ts', "import { guardTags } from '../shared/docker/tag-guard.ts';"],
  ['load-image/load-image.ts', "import { loadInto } from './into/into-holders.ts';"],
  ['load-image/load-image.ts', "import { proveAndName } from './into/prove.ts';"],
  ['load-image/into/loopback-registry.ts', "import { createServer } from 'node:http';"],
  ['joined/joined.ts', "import { exportImage } from '../export-image/export-image.ts';"],
  ['joined/main.ts', "import { planLoad } from '../load-image/plan/plan.ts';"],
  ['publish-image/publish-image.ts', "import { resolveArtifact } from '../shared/handed-over/opened-artifact.ts';"],
  ['shared/handed-over/find.ts', "import type { ArtifactReader } from '../artifacts/store.ts';"],
])('%s may have: %s', async (file, line) => {
  expect(await complaints(file, line)).toEqual([]);
});
