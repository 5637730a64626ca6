import { expect, test } from '@jest/globals';
import { waitingReader, watchProducers } from '../../load-image/wait.ts';
import type { RunJob, RunJobs } from '../../shared/artifacts/service/workflow-runs.ts';
import type { Artifact } from '../../shared/artifacts/store.ts';
import type { Log } from '../../shared/base/log.ts';
import { timeline } from '../../shared/base/timeline.ts';
import { progressTo } from '../../shared/runner/run.ts';

const job = (name: string, conclusion?: string, runner = ''): RunJob => ({ name, conclusion, runner, url: '' });
const own = job('test', undefined, 'mine');

const none = (): void => undefined;
const log: Log = { info: none, notice: none, warning: none, chapter: (_, work) => work(), progress: progressTo(none) };
const listing: RunJobs = {
  list: () => Promise.resolve([]),
  earlier: () => Promise.resolve([]),
  isRefusal: () => false,
  startedAt: () => Promise.resolve(1000),
  [Symbol.asyncDispose]: () => Promise.resolve(),
};

/** Watches jobs in the second attempt of a run, on the runner `mine`. */
function producersOf(wanted: string | undefined, tools: Partial<Parameters<typeof watchProducers>[1]>) {
  const { signal } = new AbortController();
  const usual = { jobs: listing, runnerName: 'mine', runAttempt: 2, log, timeline: timeline(), signal };
  return watchProducers(wanted, { ...usual, ...tools }, 0);
}

test.each<[string, readonly RunJob[], string | undefined, string, boolean, boolean]>([
  ['the named job runs', [job('build'), own], 'build', 'mine', false, false],
  ['the named job has failed', [job('build', 'failure'), own], 'build', 'mine', true, true],
  ['the named job made something else', [job('build', 'success'), own], 'build', 'mine', true, false],
  ['the named job isn’t listed yet', [job('lint', 'success'), own], 'build', 'mine', false, false],
  ['another job’s name starts with the same text', [job('build-docs', 'failure'), own], 'build', 'mine', false, false],
  ['one job of its matrix runs', [job('build (a)', 'failure'), job('build (b)'), own], 'build', 'mine', false, false],
  [
    'all jobs of its matrix have ended',
    [job('build (a)', 'failure'), job('build (b)', 'success')],
    'build',
    'mine',
    true,
    true,
  ],
  ['a pattern matches the job', [job('ci / build', 'skipped'), own], '* / build', 'mine', true, true],
  ['any other job runs', [job('build', 'failure'), job('lint'), own], undefined, 'mine', false, false],
  ['all other jobs have ended', [job('build', 'failure'), job('lint', 'success'), own], undefined, 'mine', true, false],
  ['there is no other job', [own], undefined, 'mine', true, false],
  ['the current job is unknown', [job('build', 'failure'), own], undefined, '', false, false],
])('%s', async (_, jobs, wanted, runnerName, isOver, isCertain) => {
  const look = producersOf(wanted, {
    runnerName,
    runAttempt: 1,
    jobs: { ...listing, list: () => Promise.resolve(jobs) },
  });
  // An uncertain end counts at the second check.
  const [first, second] = [await look(), await look()];
  expect([second.over !== undefined, first.over !== undefined]).toEqual([isOver, isCertain]);
});

test.each<[string, readonly RunJob[], readonly string[]]>([
  ['only failed jobs run again, and the others count as before', [own], ['test', 'lint', 'build']],
  [
    'the service carries the artifact over',
    [own, job('build', 'success'), job('lint', 'success')],
    ['test', 'build', 'lint'],
  ],
  ['all jobs run again, and the build waits for another job', [own, job('lint')], ['test', 'lint']],
])('in a re-run: %s', async (_, jobs, expected) => {
  const earlier = [job('lint', 'success'), job('build', 'success'), job('test', 'success')];
  const lists = { list: () => Promise.resolve(jobs), earlier: () => Promise.resolve(earlier) };
  expect((await producersOf('another', { jobs: { ...listing, ...lists } })()).jobs).toEqual(expected);
});

/** Watches the job `build` in a re-run. Each check of the jobs has the next of these outcomes, and later checks have the last one. */
function watched(...outcomes: readonly (readonly RunJob[] | Error)[]) {
  let asked = 0;
  const lines: string[] = [];
  const warnings: string[] = [];
  const state = producersOf('build', {
    jobs: {
      ...listing,
      list: () => {
        const outcome = outcomes[Math.min(asked++, outcomes.length - 1)] ?? [];
        return outcome instanceof Error ? Promise.reject(outcome) : Promise.resolve(outcome);
      },
      isRefusal: (error) => error === refused,
    },
    log: { ...log, info: (line) => void lines.push(line), warning: (line) => void warnings.push(line) },
  });
  return { state, lines, warnings, asked: () => asked };
}

const refused = new Error('HTTP 403');
const broken = new Error('HTTP 502');

test.each([
  [refused, 2],
  [broken, 3],
])(
  'in a re-run, an image that was expected to be replaced is still expected to be replaced after %s',
  async (failure, looks) => {
    const { state, warnings, asked } = watched([job('build'), own], failure);
    for (let look = 0; look < 3; look += 1) expect((await state()).since).toBe(1000);
    expect([asked(), warnings]).toEqual([looks, []]);
  },
);

test('a failure to read the jobs is followed by another read, and permissions are not blamed', async () => {
  const { state, lines } = watched([job('build'), own], broken, broken, [job('build', 'failure'), own]);
  for (let look = 0; look < 3; look += 1) expect((await state()).over).toBeUndefined();
  expect((await state()).over).toMatchObject([{ name: 'build', conclusion: 'failure' }]);
  expect(lines).toEqual(['The jobs of this run could not be read (HTTP 502): trying again later.']);
});

test('in a re-run, an earlier image isn’t accepted just because the service fails at first', async () => {
  const { state, warnings } = watched(broken, [job('build'), own]);
  expect([(await state()).since, (await state()).since, warnings]).toEqual([Infinity, 1000, []]);
});

test('in a re-run, an earlier image is accepted in the end if the service keeps failing', async () => {
  const { state, warnings } = watched(broken);
  expect([(await state()).since, (await state()).since, (await state()).since]).toEqual([
    Infinity,
    Infinity,
    undefined,
  ]);
  expect([(await state()).since, warnings.length]).toEqual([undefined, 1]);
});

interface Played {
  readonly lines: readonly string[];
  readonly looks: number;
  readonly outcome: readonly string[] | string;
}

/** Simulates a wait, a hundred times as fast, in which each check has the next of these outcomes. */
async function play(jobs: readonly (readonly RunJob[])[], appearsAt: number, wanted?: string): Promise<Played> {
  const lines: string[] = [];
  let [looks, asked] = [0, 0];
  const reader = {
    list: () => {
      looks += 1;
      const artifacts: readonly Artifact[] = looks < appearsAt ? [] : [{ id: 1, name: 'docker-image', size: 1 }];
      return Promise.resolve(artifacts);
    },
    open: () => Promise.reject(new Error('not here')),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const told = (line: string): void => void lines.push(line);
  const waiting = waitingReader(
    reader,
    { wanted: ['docker-image'], minutes: 0.01, job: wanted },
    {
      jobs: {
        list: () => Promise.resolve(jobs[Math.min(asked++, jobs.length - 1)] ?? []),
        earlier: () => Promise.resolve([]),
        isRefusal: () => false,
        startedAt: () => Promise.resolve(0),
        [Symbol.asyncDispose]: () => Promise.resolve(),
      },
      runnerName: 'mine',
      runAttempt: 1,
      log: { info: told, notice: told, warning: told, chapter: (_, work) => work(), progress: progressTo(told) },
      timeline: timeline(),
      signal: new AbortController().signal,
      pace: { pause: [5, 20], jobs: 0, tell: 100 },
    },
  );
  const outcome = await waiting.list().then(
    (artifacts) => artifacts.map(({ name }) => name),
    (error: unknown) => (error instanceof Error ? error.message : ''),
  );
  return { lines, looks, outcome };
}

test('the wait ends before its limit if two checks find that all other jobs have ended', async () => {
  const running = [job('build'), own];
  const { outcome, looks } = await play([running, running, [job('build', 'failure'), own]], Infinity);
  expect(outcome).toContain('the job "build" (failure, ) ended without it');
  expect(looks).toBe(4);
});

test('a job that starts exactly when another one ends is still waited for', async () => {
  const ended = [job('build', 'success'), own];
  const { outcome } = await play([ended, [...ended, job('package')]], 5);
  expect(outcome).toEqual(['docker-image']);
});

test('a job without an artifact is checked a second time, because a list may lag behind', async () => {
  const { outcome } = await play([[job('build', 'success'), own]], 2, 'build');
  expect(outcome).toEqual(['docker-image']);
});

test('the log shows a wait now and then, not at each check', async () => {
  const { outcome, lines, looks } = await play([[job('build'), own]], Infinity, 'build');
  const [, seconds] = /Gave up after (\d\.\d) s/.exec(String(outcome)) ?? [];
  const told = lines.filter((line) => line.startsWith('Still waiting')).length;
  expect(told).toBeGreaterThan(0);
  // At most one in 100 ms.
  expect(told).toBeLessThanOrEqual(10 * Number(seconds));
  // On a busy machine, both are fewer.
  expect(looks).toBeGreaterThan(2 * told);
});
