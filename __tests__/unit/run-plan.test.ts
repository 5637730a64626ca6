import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { imagesInputs } from '../fixtures/load-inputs.ts';
import type { ImagesInputs } from '../../load-image/inputs.ts';
import { type ImagesPlan, planImages } from '../../load-image/plan/plan.ts';
import { chooseRun, type RunSearch } from '../../shared/artifacts/service/other-run.ts';
import type { RunArtifact, WorkflowRun, WorkflowRuns } from '../../shared/artifacts/service/workflow-runs.ts';
import { formatReference } from '../../shared/image/reference.ts';

const invalid = (message: string, hint: string): unknown =>
  expect.objectContaining({
    code: 'invalid-input',
    message: expect.stringContaining(message),
    hint: expect.stringContaining(hint),
  });
const plan = (inputs: Partial<ImagesInputs>): ImagesPlan =>
  planImages({ ...imagesInputs, ...inputs }, { ownRepository: 'org/charon', limitMinutes: 30 });

describe('the plan of a run and a fallback', () => {
  test('the default is this run, without a fallback, and needs no token', () => {
    expect(plan({ githubToken: undefined })).toMatchObject({ other: undefined, fallback: undefined });
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

  test.each<readonly [Partial<ImagesInputs>, string]>([
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

  test('a fallback needs exactly one image, and a fork’s run needs `image`', () => {
    const several = { artifactNames: ['a', 'b'] };
    const forks = { runId: '7', allowForkRuns: true };
    expect(plan({ ...forks, image: 'charon:pr' }).other?.search).toMatchObject({ allowForkRuns: true });
    expect(plan({ allowForkRuns: true }).other).toBeUndefined();
    expect(plan({ ...forks, ...several, load: false }).other?.search.wanted).toEqual(['a', 'b']);
    expect(plan({ runId: '7', ...several }).other?.search.wanted).toEqual(['a', 'b']);
    for (const refused of [{}, several])
      expect(() => plan({ ...forks, ...refused })).toThrow(
        invalid('`allow-fork-runs` is given without `image`', 'Set `image` to the one reference'),
      );
    for (const refused of [several, { load: false }])
      expect(() => plan({ fallbackImage: 'a', ...refused })).toThrow(
        invalid('The input `fallback-image` replaces one image', 'Leave it out.'),
      );
  });

  test.each<[Partial<ImagesInputs>, string]>([
    [{ tarball: '/x.tar' }, '`tarball`'],
    [{ ociLayout: '/out' }, '`oci-layout`'],
    [{ into: 'kind' }, '`into`'],
    [{ tarball: '/x.tar', ociLayout: '/out' }, '`tarball`'],
  ])('a fallback is refused with %j, because a pull writes neither a tarball nor a layout', (change, named) => {
    expect(() => plan({ fallbackImage: 'a', ...change })).toThrow(
      invalid(`Both \`fallback-image\` and ${named} are given`, 'Leave one of them out.'),
    );
  });

  test('`remove` is refused with another run, because a job can remove only its own run’s artifacts', () => {
    expect(plan({ remove: true }).other).toBeUndefined();
    expect(() => plan({ remove: true, runId: '7' })).toThrow(
      invalid('`remove: true` is given with another run', 'gh api --method DELETE'),
    );
  });

  test('a fallback is refused with podman', () => {
    expect(() => plan({ engine: 'podman', fallbackImage: 'a' })).toThrow(
      invalid('`engine: podman` and `fallback-image` are given together', ''),
    );
  });

  test.each<[Partial<ImagesInputs>, string, string]>([
    [{ runId: '7', githubToken: undefined }, 'The input `github-token` is empty', 'permissions: actions: read'],
    [{ runId: '7', repository: 'charon' }, 'is "charon"; expected owner/name.', 'Correct it under `with:`.'],
    [{ runId: '7', repository: 'a/b/c' }, 'is "a/b/c"; expected owner/name.', ''],
    [{ runId: '7', repository: 'a/..' }, 'is "a/.."; expected owner/name.', ''],
    [{ runId: '7', repository: 'a/.' }, 'is "a/."; expected owner/name.', ''],
    [{ runId: '7', repository: '.a/b' }, 'is ".a/b"; expected owner/name.', ''],
    [{ runId: '7', workflow: 'ci.yml' }, 'Both `run-id` (7) and `workflow` are given.', 'Give `run-id` for one run'],
    [{ runId: '7', branch: 'main' }, 'Both `run-id` (7) and `branch` are given.', ''],
    [{ runId: '7', event: 'push' }, 'Both `run-id` (7) and `event` are given.', ''],
    [{ runId: '0' }, 'The input `run-id` is "0"; expected the number of a run.', 'in the run’s address'],
    [{ runId: '1.5' }, 'The input `run-id` is "1.5"', ''],
    [{ runId: '7a' }, 'The input `run-id` is "7a"', ''],
    [{ runId: 'a7' }, 'The input `run-id` is "a7"', ''],
    [{ runId: '9007199254740993' }, 'The input `run-id` is "9007199254740993"', ''],
    [{ workflow: 'ci.yml' }, 'The input `workflow` is given without `branch`.', 'Name the branch too'],
    [
      { workflow: 'CI', branch: 'main' },
      'The input `workflow` is "CI"; expected the name of its file',
      'It is the file',
    ],
    [{ workflow: '.yml', branch: 'main' }, 'The input `workflow` is ".yml"', ''],
    [{ workflow: 'ci.yml.md', branch: 'main' }, 'The input `workflow` is "ci.yml.md"', ''],
    [{ workflow: '7x', branch: 'main' }, 'The input `workflow` is "7x"', ''],
    [{ workflow: 'x7', branch: 'main' }, 'The input `workflow` is "x7"', ''],
    [{ branch: 'main' }, 'The input `branch` is given without `workflow` and without `run-id`.', 'for the latest run'],
    [{ event: 'push' }, 'The input `event` is given without `workflow`', ''],
    [{ repository: 'a/b' }, 'The input `repository` is given without `workflow`', ''],
  ])('%j is refused', (inputs, message, hint) => {
    expect(() => plan(inputs)).toThrow(invalid(message, hint));
  });

  test('any repository name is either refused or two plain parts of a path (S3.3)', () => {
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
  test.each([
    ['id:1', 'has an artifact by its id', undefined],
    ['id:2', 'names an id that the run doesn’t have', '"id:2"; it has "docker-image"'],
  ])('%s: the run %s', async (wanted, _, message) => {
    const runs: WorkflowRuns = {
      get: () => Promise.resolve(runOf(7, false)),
      // eslint-disable-next-line @typescript-eslint/require-await -- as asynchronous as the real one
      successful: async function* () {
        yield* [];
      },
      artifacts: () => Promise.resolve([artifact(false)]),
      signDownload: () => Promise.reject(new Error('not asked for')),
    };
    const search = { choice: { runId: 7 }, repository: 'org/charon', wanted: [wanted], allowForkRuns: false };
    const chosen = chooseRun(runs, search, () => undefined);
    if (message === undefined) expect((await chosen).artifacts).toHaveLength(1);
    else await expect(chosen).rejects.toThrow(message);
  });

  const kinds = fc.array(fc.constantFrom('fork', 'none', 'expired', 'live'), { maxLength: 60 });
  const search: RunSearch = {
    choice: { workflow: 'ci.yml', branch: 'main', event: undefined },
    repository: 'org/charon',
    wanted: ['docker-image'],
    allowForkRuns: false,
  };

  test('the result for any list of runs is the first usable run of this repository within 20, or the right error (S3.3, S3.4)', async () => {
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
