import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { type ArtifactService, startArtifactService } from '../fakes/artifact-service/service.ts';
import { errorCode, errorMessage, type Scenario, startScenario, shortPauses } from '../fixtures/scenario.ts';

// Faults between this machine and the artifact service: host names, certificates, proxies.

let scenario: Scenario;
let secure: ArtifactService;
beforeAll(async () => {
  scenario = await startScenario();
  secure = await startArtifactService({ tls: true });
  const handedOver = await scenario.handOver({ 'artifact-name': 'docker-image' });
  expect(handedOver.log).not.toContain('::error');
});
afterAll(async () => {
  await secure.close();
  await scenario.end();
});
afterEach(() => {
  expect(scenario.docker.state().images).toEqual([]);
});

type Environment = Readonly<Record<string, string | undefined>>;
const none: Environment = { no_proxy: undefined, NO_PROXY: undefined, NODE_EXTRA_CA_CERTS: undefined };

describe.each([
  ['an unknown host', (): Environment => ({ ACTIONS_RESULTS_URL: 'http://nowhere.invalid/' }), 'nowhere.invalid'],
  [
    'an untrusted certificate',
    (): Environment => ({ ...secure.env(), NODE_EXTRA_CA_CERTS: undefined }),
    'self-signed certificate',
  ],
  [
    'an unreachable proxy',
    // A service on the loopback interface is reached without a proxy.
    (): Environment => ({ ACTIONS_RESULTS_URL: 'http://results.invalid/', http_proxy: 'http://127.0.0.1:9' }),
    '127.0.0.1:9',
  ],
])('%s', (_what, env, told) => {
  test('ends a load and a handover with transfer-failed and the cause, and leaves nothing behind', async () => {
    const [load, handOver] = await Promise.all([
      scenario.loads({}, { env: { ...none, ...env(), ...shortPauses } }),
      scenario.handOver({ 'artifact-name': 'another' }, { env: { ...none, ...env(), ...shortPauses } }),
    ]);
    for (const outcome of [load, handOver]) {
      expect(errorCode(outcome)).toBe('transfer-failed');
      expect(errorMessage(outcome)).toContain(told);
      expect(errorMessage(outcome)).toContain('Next step: ');
      expect(outcome.leftInTemp).toEqual([]);
    }
    expect(scenario.service.artifacts.map(({ name }) => name)).toEqual(['docker-image']);
  });
});

test('an artifact that is replaced during its load gives the image that was found, or an error, but never a mixture', async () => {
  await using store = scenario.store();
  let replaced: Promise<unknown> | undefined;
  const replace = async (): Promise<void> => {
    await scenario.removeArtifacts('docker-image');
    await scenario.handOver({ 'artifact-name': 'docker-image' });
  };
  const outcome = await scenario.loads(
    {},
    {
      onOutput: (text) => {
        if (text.includes('Artifact "docker-image"')) replaced ??= replace();
      },
    },
  );
  await replaced;
  expect((await store.list()).map(({ name }) => name)).toEqual(['docker-image']);
  if (outcome.exitCode === 0) expect(outcome.outputs['config-digest']).toBe(scenario.image.configDigest);
  else
    expect(['artifact-not-found', 'artifact-expired', 'transfer-failed', 'artifact-corrupt']).toContain(
      errorCode(outcome),
    );
  scenario.docker.set({ images: [] });
});
