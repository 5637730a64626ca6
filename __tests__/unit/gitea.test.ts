import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { buffer } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { chooseRun } from '../../shared/artifacts/service/other-run.ts';
import { serviceCredentials } from '../../shared/artifacts/service/results-service.ts';
import { runStore } from '../../shared/artifacts/service/run-store.ts';
import { runJobs, workflowRuns } from '../../shared/artifacts/service/workflow-runs.ts';
import type { Artifact, ArtifactStore } from '../../shared/artifacts/store.ts';
import { httpClient } from '../../shared/http/client.ts';
import type { WorkflowHost } from '../../shared/image/host.ts';
import { jobContext } from '../../shared/runner/context.ts';
import { codeOf } from '../fixtures/any-bytes.ts';
import { type GiteaArtifacts, startGiteaArtifacts } from '../fakes/gitea-artifacts.ts';

describe.each(['1.26', 'older'] as const)('the artifact service of Gitea, %s (B.15)', (manners) => {
  let service: GiteaArtifacts;
  const stores: ArtifactStore[] = [];
  beforeEach(async () => void (service = await startGiteaArtifacts(manners)));
  afterEach(async () => {
    for (const store of stores.splice(0)) await store[Symbol.asyncDispose]();
    await service.close();
  });

  /** Returns the artifacts of the run, as one of its jobs sees them. */
  const jobOf = (job: number): ArtifactStore => {
    const store = runStore({
      ...{ runtimeToken: service.token(job), resultsUrl: service.url, host: 'Gitea', proxies: { except: '' } },
      log: { info: () => undefined, notice: () => undefined, progress: (_what, _size, work) => work(() => undefined) },
      ...{ tempRoot: tmpdir(), maskSecret: () => undefined, signal: new AbortController().signal },
    });
    stores.push(store);
    return store;
  };
  const upload = (store: ArtifactStore, name: string, bytes: Buffer, before?: () => Promise<unknown>) =>
    store.upload({
      name,
      retentionDays: 1,
      files: (async function* () {
        await before?.();
        yield { name: 'a.bin', size: bytes.length, chunks: chunksOf(bytes) };
      })(),
      onBytes: () => undefined,
    });
  const read = async (store: ArtifactStore, name: string): Promise<Buffer> => {
    const [artifact] = (await store.list()).filter((listed) => listed.name === name);
    if (artifact === undefined) throw new Error(`there is no artifact ${name}`);
    return buffer((await store.open(artifact)).read('a.bin', () => undefined));
  };
  /** Without the claims, which are removed when the upload ends. */
  const stored = () => service.artifacts.filter(({ name }) => !name.startsWith('.'));
  const listed = async (): Promise<readonly string[]> => (await jobOf(99).list()).map(({ name }: Artifact) => name);

  test('an artifact passes from one job to another', async () => {
    expect(await listed()).toEqual([]);
    const bytes = randomBytes(9_000_000);
    const { size } = await upload(jobOf(1), 'image', bytes);
    expect(stored()).toMatchObject([{ size }]);
    expect((await read(jobOf(2), 'image')).equals(bytes)).toBe(true);
    // Few large parts: for each, Gitea reads the file from its start.
    expect(service.ranges.length).toBeLessThan(5);
  });

  test('two uploads of a run at the same time do not mix their blocks', async () => {
    const [one, other] = [randomBytes(9_000_000), randomBytes(9_000_000)];
    await Promise.all([upload(jobOf(1), 'one', one), upload(jobOf(2), 'other', other)]);
    expect((await read(jobOf(3), 'one')).equals(one)).toBe(true);
    expect((await read(jobOf(3), 'other')).equals(other)).toBe(true);
  });

  test('an artifact is stored for the requested number of days', async () => {
    await upload(jobOf(1), 'image', randomBytes(10));
    expect(stored()).toMatchObject([{ days: 1 }]);
  });

  test('a name that another job has used is refused, although the service would replace the artifact', async () => {
    const bytes = randomBytes(10);
    await upload(jobOf(1), 'image', bytes);
    expect(await codeOf(() => upload(jobOf(2), 'image', randomBytes(10)))).toBe('artifact-name-taken');
    expect((await read(jobOf(3), 'image')).equals(bytes)).toBe(true);
  });

  test('an upload of a name is refused while another job uploads under it, and damages nothing (S2.5)', async () => {
    const bytes = randomBytes(10);
    let second: string | undefined;
    await upload(jobOf(1), 'image', bytes, async () => {
      second = await codeOf(() => upload(jobOf(2), 'image', randomBytes(10)));
    });
    expect(second).toBe('artifact-name-taken');
    expect((await read(jobOf(3), 'image')).equals(bytes)).toBe(true);
  });

  test('an attempt that was killed during its upload leaves the name only to the next attempt of its job', async () => {
    await upload(jobOf(3), '.uploading-1-image', randomBytes(10));
    expect(await listed()).toEqual([]);
    expect(await codeOf(() => upload(jobOf(2), 'image', randomBytes(10)))).toBe('artifact-name-taken');
    await upload(jobOf(1), 'image', randomBytes(10));
    expect(await listed()).toEqual(['image']);
  });

  test('of two uploads of one name at the same moment, one succeeds, and its bytes are stored (S2.5)', async () => {
    for (let round = 0; round < 5; round += 1) {
      const [name, contents] = [`image-${String(round)}`, [randomBytes(10), randomBytes(10)]];
      const codes = await Promise.all(contents.map((bytes, job) => codeOf(() => upload(jobOf(job), name, bytes))));
      expect(codes.toSorted()).toEqual(['artifact-name-taken', undefined]);
      expect(await read(jobOf(3), name)).toEqual(contents[codes.indexOf(undefined)]);
    }
  });

  test('an unfinished artifact is not listed, and neither is one that is being replaced', async () => {
    const seen: unknown[] = [];
    await upload(jobOf(1), 'image', randomBytes(10), async () => seen.push(await listed()));
    const store = jobOf(1);
    const [existing] = await store.list();
    if (existing !== undefined) await store.remove(existing);
    await upload(store, 'image', randomBytes(10), async () => seen.push(await listed()));
    expect(seen).toEqual([[], []]);
    expect(await listed()).toEqual(['image']);
  });

  test('a failed upload leaves the name to the next upload', async () => {
    const failed = upload(jobOf(1), 'image', randomBytes(10), () => Promise.reject(new RangeError('the build failed')));
    await expect(failed).rejects.toThrow('the build failed');
    expect(await listed()).toEqual([]);
    await upload(jobOf(1), 'image', randomBytes(10));
    expect(await listed()).toEqual(['image']);
  });

  test('an unknown response ends the step, because the official client refuses Gitea', async () => {
    service.onAnswer = () => 'unknown';
    const error = { code: 'unsupported-host', message: expect.stringContaining('of Gitea') };
    await expect(upload(jobOf(1), 'image', randomBytes(10))).rejects.toMatchObject(error);
  });

  test.each(['CreateArtifact', 'UploadArtifact', 'DownloadArtifact'])(
    'the next step after a refused %s is about Gitea, not GitHub',
    async (refused) => {
      await upload(jobOf(1), 'image', randomBytes(10));
      service.onAnswer = (method) => (method === refused ? 'refused' : undefined);
      const work =
        refused === 'DownloadArtifact' ? read(jobOf(2), 'image') : upload(jobOf(1), 'other', randomBytes(10));
      const error = {
        code: 'transfer-failed',
        hint: expect.stringMatching(/^(?!.*github)Re-run .* the log of Gitea/i),
      };
      await expect(work).rejects.toMatchObject(error);
    },
  );

  test('an upload succeeds although the response to its end was lost', async () => {
    let calls = 0;
    service.onAnswer = (method) => (method === 'FinalizeArtifact' && (calls += 1) === 1 ? 'lost' : undefined);
    const bytes = randomBytes(10);
    await upload(jobOf(1), 'image', bytes);
    expect((await read(jobOf(2), 'image')).equals(bytes)).toBe(true);
  }, 60_000);
});

async function* chunksOf(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let start = 0; start < bytes.length; start += 1_000_000)
    yield await Promise.resolve(bytes.subarray(start, start + 1_000_000));
}

describe('an unsupported host is named, with a next step (B.15)', () => {
  const scope = (ids: string): string =>
    `a.${Buffer.from(JSON.stringify({ scp: `Actions.Results:${ids}` })).toString('base64url')}.c`;

  test.each<[WorkflowHost, string, RegExp, RegExp]>([
    ['GitHub', '', /^The artifact service can't be used: ACTIONS_RUNTIME_TOKEN is not set/, /Gitea 1\.26 or newer/],
    ['GitHub Enterprise Server', '', /of GitHub Enterprise Server can't be used/, /registry/],
    ['Gitea', 'a.e30.c', /of Gitea can't be used: .*no scope/, /Update Gitea to 1\.26 or newer/],
    ['Forgejo', 'a.e30.c', /of Forgejo can't be used/, /Gitea 1\.26/],
    ['act', scope('1:1'), /of act can't be used: this is act’s own artifact server/, /ACTIONS_RESULTS_URL/],
  ])('%s', (host, token, message, hint) => {
    const error = {
      code: 'unsupported-host',
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    };
    expect(() => serviceCredentials(token, 'https://x', host)).toThrow(expect.objectContaining(error));
  });

  test('act with another artifact service, and Gitea with its runner, are supported', () => {
    expect(serviceCredentials(scope('a-b:c-d'), 'https://x', 'act')).toMatchObject({ isGitea: false });
    expect(serviceCredentials(scope('7:12'), 'https://x', 'Gitea')).toMatchObject({ isGitea: true });
  });

  test.each<[Readonly<Record<string, string>>, WorkflowHost]>([
    [{}, 'GitHub'],
    [{ GITHUB_SERVER_URL: 'https://github.com' }, 'GitHub'],
    [{ GITHUB_SERVER_URL: 'https://octo.ghe.com' }, 'GitHub'],
    [{ GITHUB_SERVER_URL: 'https://github.example.com' }, 'GitHub Enterprise Server'],
    [{ GITHUB_SERVER_URL: 'https://git.example.com', GITEA_ACTIONS: 'true', ACT: 'true' }, 'Gitea'],
    [{ GITHUB_SERVER_URL: 'https://git.example.com', GITEA_ACTIONS: 'true', FORGEJO_ACTIONS: 'true' }, 'Forgejo'],
    [{ GITHUB_SERVER_URL: 'https://github.com', ACT: 'true' }, 'act'],
  ])('the environment %j is that of %s', (env, host) => {
    expect(jobContext(env).host).toBe(host);
  });
});

describe('Gitea’s REST API (B.15)', () => {
  const repository = { full_name: 'org/charon' };
  const run = (id: number, workflow: string, event: string): unknown => ({
    ...{ id, path: `${workflow}@refs/heads/main`, event, html_url: `http://x/org/charon/actions/runs/${String(id)}` },
    ...{ started_at: '2026-11-30T12:00:00Z', repository },
  });
  const artifactOf = (id: number, name: string, size: number) => ({
    ...{ id, name, size_in_bytes: size, expired: false, expires_at: '2026-12-01T00:00:00Z' },
  });
  const artifacts = [
    artifactOf(101, '.uploading-1-image', 5),
    artifactOf(102, 'replaced', 0),
    ...Array.from({ length: 70 }, (_, at) => artifactOf(at + 1, `image-${String(at + 1)}`, 5)),
  ];
  const jobs = [
    {
      name: 'build',
      status: 'completed',
      conclusion: 'success',
      html_url: 'http://x/1',
      runner_name: 'r',
      run_attempt: 1,
    },
    { name: 'test', status: 'in_progress', html_url: 'http://x/2', runner_name: 'r', run_attempt: 2 },
  ];
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://x');
    const path = pathname.replace('/api/v1/repos/org/charon/actions', '');
    const page = Number(searchParams.get('page') ?? 1);
    const all = artifacts.filter(({ name }) => [null, name].includes(searchParams.get('name')));
    const answers: Readonly<Record<string, unknown>> = {
      '/runs': {
        workflow_runs: [run(5, 'other.yml', 'push'), run(4, 'ci.yml', 'pull_request'), run(3, 'ci.yml', 'push')],
      },
      '/runs/3': run(3, 'ci.yml', 'push'),
      '/runs/4': run(4, 'ci.yml', 'pull_request'),
      '/runs/3/jobs': { total_count: 2, jobs },
      '/runs/3/artifacts': { total_count: all.length, artifacts: all.slice((page - 1) * 30, page * 30) },
    };
    const answer = answers[path];
    response.writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer ?? { message: 'The target couldn’t be found.' }));
  });
  const { signal } = new AbortController();
  const http = httpClient({ except: '' }, signal);
  let apiUrl = '';
  beforeAll(async () => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    apiUrl = `http://127.0.0.1:${String(typeof address === 'object' && address !== null ? address.port : 0)}/api/v1`;
  });
  afterAll(async () => {
    await http.close();
    server.close();
  });
  const onRetry = (): void => undefined;
  const choose = (choice: Parameters<typeof chooseRun>[1]['choice'], wanted: readonly string[] = ['image-70']) =>
    chooseRun(
      workflowRuns({ http, apiUrl, repository: 'org/charon', token: 't', onRetry, signal }),
      { choice, repository: 'org/charon', wanted, allowForkRuns: false },
      () => undefined,
    );

  test('the latest run of a workflow is found, but no run of a pull request, which may be from a fork', async () => {
    const { run: found } = await choose({ workflow: 'ci.yml', branch: 'main', event: undefined });
    expect(found).toMatchObject({ id: 3, createdAt: '2026-11-30T12:00:00Z', isOfFork: false });
    expect(await codeOf(() => choose({ runId: 4 }))).toBe('invalid-input');
  });

  test('finished artifacts on later pages are found, although no page links to the next one', async () => {
    expect((await choose({ runId: 3 }, ['image-1', 'image-70'])).artifacts).toHaveLength(70);
  });

  test('the jobs of the run and its start are read without their attempt', async () => {
    const of = { repository: 'org/charon', runId: '3', runAttempt: 2, proxies: { except: '' }, apiUrl, token: 't' };
    await using reader = runJobs({ ...of, onRetry, signal });
    expect(await reader.list()).toMatchObject([
      { name: 'build', conclusion: 'success' },
      { name: 'test', conclusion: undefined },
    ]);
    expect(await reader.startedAt()).toBe(Date.parse('2026-11-30T12:00:00Z'));
  });
});
