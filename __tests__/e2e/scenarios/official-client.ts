import assert from 'node:assert/strict';
import { jobOf, results, type Scenario } from '../stage.ts';

export const officialClient: Scenario = {
  name: 'official-client',
  title: 'load-image loads uploads of the current official client, and the client downloads export-image’s artifacts',
  recipes: [],
  run: async ({ workflow }) => {
    const run = await workflow(`on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - run: |
          docker build --network=host --build-arg VERSION=theirs --tag charon:local .
          docker save --output theirs.tar charon:local
          docker image rm charon:local
      - uses: actions/upload-artifact@v7
        with:
          name: theirs
          path: theirs.tar
      - uses: org/image-handover/export-image@v1
        with:
          artifact-name: ours
          build-args: VERSION=ours
  load-theirs:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: org/image-handover/load-image@v1
        with:
          artifact-name: theirs
      - run: scripts/waf_integration.sh
  load-ours:
    needs: [build, load-theirs]
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: actions/download-artifact@v8
        with:
          name: ours
          path: download
      - run: docker load --input download/charon.tar
      - run: scripts/waf_integration.sh
`);
    assert.deepEqual(results(run), ['build: success', 'load-ours: success', 'load-theirs: success']);
    assert.match(jobOf(run, 'load-theirs').log, /^charon theirs: waf$/m);
    assert.match(jobOf(run, 'load-ours').log, /^charon ours: waf$/m);
  },
};
