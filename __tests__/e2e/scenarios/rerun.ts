import assert from 'node:assert/strict';
import { jobOf, results, type Scenario } from '../stage.ts';

const build = (id: string, version: string): string => `  ${id}:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - uses: org/image-handover/export-image@v1
        with:
          build-args: VERSION=${version}
`;
const integration = (needs: string): string => `  integration:
${needs}    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: org/image-handover/load-image@v1
      - run: scripts/waf_integration.sh
      - run: test "$GITHUB_RUN_ATTEMPT" -gt 1   # a flaky test
`;
const afterBuild = '    needs: build\n';

export const rerun: Scenario = {
  name: 'rerun',
  title: 'Reruns all jobs of a run, then only the failed jobs, and rejects a name that another job uses',
  recipes: [],
  run: async ({ workflow, service }) => {
    const all = (version: string): string => `on: push\njobs:\n${build('build', version)}${integration(afterBuild)}`;
    const first = await workflow(all('one'), { attempt: 1 });
    assert.deepEqual(results(first), ['build: success', 'integration: failure']);
    assert.match(jobOf(first, 'integration').log, /^charon one: waf$/m);

    const failedOnly = await workflow(`on: push\njobs:\n${integration('')}`, { attempt: 2 });
    assert.deepEqual(results(failedOnly), ['integration: success']);
    assert.match(jobOf(failedOnly, 'integration').log, /^charon one: waf$/m);
    assert.match(jobOf(failedOnly, 'integration').summary, /attempt 1/);

    const again = await workflow(all('three'), { attempt: 3 });
    assert.deepEqual(results(again), ['build: success', 'integration: success']);
    assert.match(jobOf(again, 'integration').log, /^charon three: waf$/m);
    assert.equal(
      service.artifacts.filter(({ finalised }) => finalised).length,
      1,
      'the third attempt replaced the first artifact',
    );

    const other = await workflow(`on: push\njobs:\n${build('build-other', 'other')}`, { attempt: 3 });
    assert.deepEqual(results(other), ['build-other: failure']);
    const { annotations, log } = jobOf(other, 'build-other');
    assert.match(annotations.map(({ title }) => title).join(), /artifact-name-taken/);
    assert.doesNotMatch(log, /#\d+ \[build/, 'the error comes before the build');
  },
};
