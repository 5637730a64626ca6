import { execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { testedDocker } from '../fixtures/engines.ts';
import { projectRoot } from '../../dev/action-runner.ts';
import { type DockerEngine, type ImageStore, startDockerEngine } from '../../dev/docker-engine.ts';
import { startRegistry } from '../../dev/docker-registry.ts';
import { writeBusyboxContext } from '../../dev/test-images.ts';
import { viewOf } from '../../shared/bytes/chunks.ts';
import { arrivingLayers } from '../../shared/layout/arriving-layers.ts';
import { blobPath } from '../../shared/layout/read-layout.ts';

// Tests the engines that all other integration tests use.

const stores = ['classic', 'containerd'] as const;
const folder = mkdtempSync(join(tmpdir(), 'engine-test-'));
let engines: Readonly<Record<ImageStore, DockerEngine>>;

beforeAll(async () => {
  const [classic, containerd] = await Promise.all([
    startDockerEngine({ store: 'classic', version: testedDocker() }),
    startDockerEngine({ store: 'containerd', name: 'two', version: testedDocker() }),
  ]);
  engines = { classic, containerd };
  await writeBusyboxContext(join(folder, 'busybox'));
});
afterAll(async () => {
  await Promise.all(stores.map((store) => engines[store].stop()));
  rmSync(folder, { recursive: true, force: true });
});

const socketOf = (engine: DockerEngine): string => engine.host.slice('unix://'.length);
const build = (engine: DockerEngine): string =>
  engine.docker('buildx', 'build', '--load', '--network=host', '-t', 'built:here', join(folder, 'busybox'));

describe.each(stores)('the %s store', (store) => {
  test('is the store that docker info shows, with the docker driver of buildx', () => {
    const engine = engines[store];
    if (testedDocker() !== 'packaged') {
      expect(engine.docker('version', '--format', '{{.Server.Version}}')).toContain(testedDocker());
    }
    const status = engine.docker('info', '--format', '{{json .DriverStatus}}');
    expect(status.includes('io.containerd.snapshotter')).toBe(store === 'containerd');
    expect(engine.docker('buildx', 'ls', '--format', '{{.Name}} {{.DriverEndpoint}}')).toContain('default');
  });

  test('builds an image with a RUN step, and runs it', () => {
    const engine = engines[store];
    build(engine);
    const run = engine.docker('run', '--rm', '--network', 'none', 'built:here', 'cat', '/etc/built');
    expect(run).toBe('built\n');
  });
});

// export-image uploads layers while BuildKit's client still writes them.
test('a layer of an OCI layout can be read during the export, on the containerd store', async () => {
  const context = join(folder, 'large');
  mkdirSync(context);
  writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY data /data\n');
  writeFileSync(join(context, 'data'), randomBytes(150_000_000));
  const layout = join(folder, 'layout');
  const { env } = engines.containerd;
  const args = ['buildx', 'build', '--provenance=false', '--output', `type=oci,tar=false,dest=${layout}`, context];
  const run = promisify(execFile);
  await run('docker', args, { env: { ...process.env, ...env } });
  rmSync(layout, { recursive: true });
  const digests = new Map<string, string>();
  let early = 0;
  for await (const layer of arrivingLayers(layout, run('docker', args, { env: { ...process.env, ...env } }))) {
    if (!existsSync(blobPath(layout, layer.digest))) early += 1;
    const hash = createHash('sha256');
    for await (const chunk of layer.chunks()) hash.update(viewOf(chunk));
    digests.set(layer.digest, `sha256:${hash.digest('hex')}`);
  }
  expect(early).toBeGreaterThan(0);
  expect([...digests.values()]).toEqual([...digests.keys()]);
});

test('an image built on one engine is not in the other engine', () => {
  build(engines.classic);
  engines.classic.docker('tag', 'built:here', 'only:here');
  expect(() => engines.containerd.docker('image', 'inspect', 'only:here')).toThrow(/No such image/);
});

test('a stopped engine leaves no data behind, and other engines keep running', async () => {
  const third = await startDockerEngine({ store: 'classic', version: testedDocker() });
  expect(existsSync(socketOf(third)) && existsSync(third.dataRoot)).toBe(true);
  await third.stop();
  expect(existsSync(socketOf(third)) || existsSync(third.dataRoot)).toBe(false);
  expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(third.dataRoot);
  for (const store of stores) expect(engines[store].docker('info')).toContain('Server Version');
});

test.each(['SIGTERM', 'SIGKILL'] as const)(
  'an engine ends when the process that started it ends (%s)',
  async (signal) => {
    const script = join(projectRoot, 'dev/docker-engine.ts');
    const owner = spawn(process.execPath, [script, 'start', '--store', 'classic', '--version', testedDocker()], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      let said = '';
      for await (const chunk of owner.stdout.setEncoding('utf8')) {
        said += String(chunk);
        if (said.includes('Ctrl-C')) break;
      }
      const root = /(\/\S*ih-classic-[^/]+)\//.exec(said)?.[1] ?? 'no root found';
      expect(enginesBelow(root)).toHaveLength(1);
      owner.kill(signal);
      if (owner.exitCode === null && owner.signalCode === null) await once(owner, 'exit');
      for (let tries = 0; enginesBelow(root).length > 0 && tries < 1200; tries += 1)
        await new Promise((resolve) => setTimeout(resolve, 100));
      expect(enginesBelow(root)).toEqual([]);
      // The data is removed only if the process can still act.
      if (signal === 'SIGTERM') expect(existsSync(root)).toBe(false);
      rmSync(root, { recursive: true, force: true });
    } finally {
      owner.kill('SIGTERM');
    }
  },
);

/** Returns the process IDs of the dockerd processes that work in this folder. */
function enginesBelow(root: string): readonly string[] {
  const commandOf = (id: string): string => {
    try {
      return readFileSync(`/proc/${id}/cmdline`, 'utf8');
    } catch {
      return ''; // the process has ended in the meantime
    }
  };
  return readdirSync('/proc').filter((id) => {
    const command = commandOf(id);
    return command.startsWith('dockerd\0') && command.includes(root);
  });
}

test('a local test registry accepts pushes and pulls only with the configured login', async () => {
  const registry = await startRegistry({ login: { user: 'tester', password: 'secret' } });
  const { docker } = engines.containerd;
  try {
    build(engines.containerd);
    const reference = `${registry.address}/built:here`;
    docker('tag', 'built:here', reference);
    expect(() => docker('push', reference)).toThrow(/no basic auth credentials|unauthorized/);
    docker('login', '-u', 'tester', '-p', 'secret', registry.address);
    docker('push', reference);
    docker('image', 'rm', reference);
    expect(docker('pull', reference)).toContain('Digest: sha256:');
  } finally {
    await registry.stop();
  }
});
