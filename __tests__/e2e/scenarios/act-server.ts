import assert from 'node:assert/strict';
import { join } from 'node:path';
import { freePort } from '../../../dev/free-port.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

export const actServer: Scenario = {
  name: 'act-server',
  title: 'act’s own artifact server is rejected immediately, and the error names it',
  recipes: [],
  run: async ({ workflow, folders }) => {
    const port = String(await freePort());
    const artifactServer = { path: join(folders.own, 'artifacts'), addr: '127.0.0.1', port };
    const run = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - uses: org/image-handover/export-image@v1
`,
      { artifactServer },
    );
    assert.deepEqual(results(run), ['build: failure']);
    const [error] = jobOf(run, 'build').annotations;
    assert.match(error?.title ?? '', /unsupported-host/);
    assert.match(error?.message ?? '', /this is act’s own artifact server/);
  },
};
