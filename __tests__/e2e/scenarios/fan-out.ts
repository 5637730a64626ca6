import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { projectRoot } from '../../../dev/action-runner.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const read = (path: string): string => readFileSync(join(projectRoot, path), 'utf8');

/** The weekly jobs of the probe, with two legs for each way and a small image. */
function probeJobs(): string {
  const { jobs } = parse(read('.github/workflows/probe.yml'));
  const { 'fan-out-build': build, 'fan-out': loads, 'fan-out-report': report } = jobs;
  loads.strategy.matrix.leg = [1, 2];
  build.env.MEGABYTES = 6;
  return stringify({
    on: 'workflow_dispatch',
    jobs: { 'fan-out-build': build, 'fan-out': loads, 'fan-out-report': report },
  });
}

export const fanOut: Scenario = {
  name: 'fan-out',
  title: 'The weekly probe hands one image to several jobs in three ways, and writes its table',
  recipes: [],
  run: async ({ workflow, world }) => {
    const repository = world.repository({
      'bench/fan-out.ts': read('bench/fan-out.ts'),
      'docs/probe.md': read('docs/probe.md'),
    });
    const event = { name: 'workflow_dispatch', ref: 'refs/heads/main', payload: { ref: 'refs/heads/main' } };
    const run = await workflow(probeJobs(), { repository, event, builderJobs: ['fan-out-build'] });
    assert.deepEqual(new Set(results(run).map((line) => line.split(': ')[1])), new Set(['success']));
    assert.equal(results(run).length, 8);
    const seconds = String.raw`\d+\.\d / \d+\.\d / \d+\.\d \(2 jobs\)`;
    const row = new RegExp(String.raw`\| \d{4}-\d\d-\d\d \| ${seconds} \| ${seconds} \| ${seconds} \|`);
    assert.match(jobOf(run, 'fan-out-report').log, row);
  },
};
