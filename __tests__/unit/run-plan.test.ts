import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { loadInputs } from '../fixtures/load-inputs.ts';
import type { RunInputs } from '../../load-image/inputs.ts';
import type { ImagesPlan } from '../../load-image/plan/images-plan.ts';
import { planLoad } from '../../load-image/plan/plan.ts';
import { planRun, type RunPlan } from '../../load-image/plan/run-plan.ts';
import { chooseRun, type RunSearch } from '../../shared/artifacts/service/other-run.ts';
import type { RunArtifact, WorkflowRun, WorkflowRuns } from '../../shared/artifacts/service/workflow-runs.ts';
import { formatReference } from '../../shared/image/reference.ts';

const none: RunInputs = {
  runId: undefined,
  workflow: undefined,
  branch: undefined,
  event: undefined,
  repository: undefined,
  githubToken: 'token',
  allowForkRuns: false,
  fallbackImage: undefined,
};
const images: ImagesPlan = { kind: 'one', wanted: ['docker-image'], each: planLoad(loadInputs), digests: undefined };
const plan = (inputs: Partial<RunInputs>): RunPlan => planRun({ ...none, ...inputs }, images, 'org/charon');

describe('planRun', () => {
  test('without choices: this run, no fallback, and no token is needed', () => {
    expect(plan({ githubToken: undefined })).toEqual({ other: undefined, fallback: undefined });
  });

  test.each([
    [{ runId: '123' }, { runId: 123 }],
    [
      { workflow: 'ci.yml', branch: 'main' },
      { workflow: 'ci.yml', branch: 'main', event: undefined },
    ],
    [
      { workflow: '.github/workflows/ci.yaml', branch: 'feature/dns', event: 'push' },
      { workflow: 'ci.yaml', branch: 'feature/dns', event: 'push' },
    ],
    [
      { workflow: '4711', branch: 'main' },
      { workflow: '4711', branch: 'main', event: undefined },
    ],
  ])('%j (S3.3)', (inputs, choice) => {
    expect(plan(inputs).other).toEqual({
      search: { choice, repository: 'org/charon', wanted: ['docker-image'], allowForkRuns: false },
      token: 'token',
    });
  });

  test.each<readonly [Partial<RunInputs>, string]>([
    [{ runId: '1', branch: 'main' }, 'Both `run-id` (1) and `branch`'],
    [{ runId: 'latest' }, '`run-id` is "latest"'],
    [{ runId: '0' }, '`run-id` is "0"'],
    [{ runId: '99999999999999999999' }, '`run-id` is "99999999999999999999"'],
    [{ branch: 'main' }, '`branch` is given without `workflow`'],
    [{ event: 'push' }, '`event` is given without `workflow`'],
    [{ repository: 'org/other' }, '`repository` is given without `workflow`'],
    [{ workflow: 'CI', branch: 'main' }, '`workflow` is "CI"'],
    [{ workflow: '..', branch: 'main' }, '`workflow` is ".."'],
    [{ workflow: 'ci.yml' }, '`workflow` is given without `branch`'],
    [{ runId: '1', repository: 'charon' }, '`repository` is "charon"'],
    [{ runId: '1', repository: 'a/b/../../c' }, '`repository` is "a/b/../../c"'],
    [{ runId: '1', repository: '../charon' }, '`repository` is "../charon"'],
    [{ runId: '100', allowForkRuns: true }, '`allow-fork-runs` is given without `image`'],
    [{ fallbackImage: 'charon:local:twice' }, 'is not an image reference'],
  ])('%j is invalid-input (S3.3)', (inputs, message) => {
    expect(() => plan(inputs)).toThrow(
      expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(message) }),
    );
  });

  test.each([
    ['ghcr.io/org/charon:main', 'ghcr.io/org/charon:main'],
    ['Org/Charon', 'org/charon:latest'],
    [`charon@sha256:${'a'.repeat(64)}`, `charon@sha256:${'a'.repeat(64)}`],
  ])('the fallback %j is pulled as %j (S3.4)', (fallbackImage, pulled) => {
    const { fallback } = plan({ fallbackImage });
    expect(fallback === undefined ? '' : formatReference(fallback)).toBe(pulled);
  });

  test('whatever the repository is called, it is either refused or two plain parts of a path (S3.3)', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[.\w/-]{1,20}$/)), (repository) => {
        let accepted: string;
        try {
          accepted = plan({ runId: '1', repository }).other?.search.repository ?? '';
        } catch {
          return;
        }
        const path = `/repos/${accepted}/actions`;
        expect(new URL(path, 'https://api.github.com').pathname).toBe(path);
        expect(path.split('/')).toHaveLength(5);
      }),
    );
  });
});

const runOf = (id: number, isOfFork: boolean): WorkflowRun => ({
  id,
  url: `https://example.com/runs/${String(id)}`,
  createdAt: '2026-01-01T00:00:00Z',
  headRepository: isOfFork ? 'mallory/charon' : 'org/charon',
  isOfFork,
});
const artifact = (expired: boolean): RunArtifact => ({
  id: 1,
  name: 'docker-image',
  size: 1,
  createdAt: '',
  expiresAt: '2026-01-02T00:00:00Z',
  expired,
});

describe('chooseRun', () => {
  const kinds = fc.array(fc.constantFrom('fork', 'none', 'expired', 'live'), { maxLength: 60 });
  const search: RunSearch = {
    choice: { workflow: 'ci.yml', branch: 'main', event: undefined },
    repository: 'org/charon',
    wanted: ['docker-image'],
    allowForkRuns: false,
  };

  test('of any row of runs it is the first live one of our own within 20, or the right error (S3.3, S3.4)', async () => {
    await fc.assert(
      fc.asyncProperty(kinds, async (row) => {
        const runs: WorkflowRuns = {
          get: () => Promise.reject(new Error('not asked for')),
          // eslint-disable-next-line @typescript-eslint/require-await -- as asynchronous as the real one
          successful: async function* () {
            yield* row.map((kind, id) => runOf(id, kind === 'fork'));
          },
          artifacts: (id) => {
            const kind = row[id];
            return Promise.resolve(kind === 'none' ? [] : [artifact(kind === 'expired')]);
          },
          signDownload: () => Promise.reject(new Error('not asked for')),
        };
        const own = row.map((kind, id) => ({ kind, id })).filter(({ kind }) => kind !== 'fork');
        const looked = own.slice(0, 20);
        const live = looked.find(({ kind }) => kind === 'live');
        const expired = looked.find(({ kind }) => kind === 'expired');
        const chosen = chooseRun(runs, search, () => undefined).then(
          ({ run }) => run.id,
          (error: unknown) => error,
        );
        if (live !== undefined) expect(await chosen).toBe(live.id);
        else if (expired !== undefined) {
          const message = expect.stringContaining(`run ${String(expired.id)} expired on 2026-01-02`);
          expect(await chosen).toMatchObject({ code: 'artifact-expired', message });
        } else {
          expect(await chosen).toMatchObject({ code: own.length === 0 ? 'run-not-found' : 'artifact-not-found' });
        }
      }),
    );
  });
});
