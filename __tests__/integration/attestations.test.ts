import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { provideBuildKit } from '../../dev/buildkit-image.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { type Registry, startRegistry } from '../../dev/docker-registry.ts';
import { describeMissingGoParts } from '../../dev/go-parts.ts';
import { engines, pruneAfterEach, service, useEngines } from '../fixtures/engine-suite.ts';
import { type Inputs, shareOf, stepOn } from '../fixtures/engines.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';

// The attestations of a pushed image, with BuildKit in the engine and BuildKit 0.34 in a container. The handed-over image has none.

const noGo = describeMissingGoParts(['buildkit', 'runc']);
const contained = { builder: 'contained' };
let registry: Registry;
// Runs before the engines are given back.
afterAll(async () => {
  if (noGo === undefined) engines.containerd.docker('buildx', 'rm', contained.builder);
  await registry.stop();
});
useEngines();
pruneAfterEach();
beforeAll(async () => {
  registry = await startRegistry();
  if (noGo !== undefined) return;
  await provideBuildKit(engines.containerd);
  const create = ['buildx', 'create', '--driver', 'docker-container', '--driver-opt', 'network=host'];
  engines.containerd.docker(...create, '--name', contained.builder, '--bootstrap');
}, 600_000);
function newContext(): string {
  const path = mkdtempSync(join(engines.directory, 'context-'));
  writeFileSync(join(path, 'Dockerfile'), 'FROM scratch\nCOPY a.txt /a.txt\nCOPY Dockerfile /b.txt\n');
  writeFileSync(join(path, 'a.txt'), path);
  return path;
}

const exportOn = (engine: EngineClient, inputs: Inputs) =>
  stepOn(service, engine, 'export-image', {
    ...{ context: newContext(), tarball: join(engines.directory, 'charon.tar'), push: 'true' },
    ...inputs,
  });
const loadOn = (engine: EngineClient, inputs: Inputs) =>
  stepOn(service, engine, 'load-image', inputs, { jobId: 'waf' });

interface RawManifest {
  /** In an index. */
  readonly manifests?: readonly { readonly digest: string; readonly annotations?: Readonly<Record<string, string>> }[];
  /** In an image, or in its attestations. */
  readonly layers?: readonly { readonly annotations?: Readonly<Record<string, string>> }[];
}

function rawOf(reference: string): RawManifest {
  const text = engines.containerd.docker('buildx', 'imagetools', 'inspect', '--raw', reference);
  const raw: RawManifest = JSON.parse(text);
  return raw;
}

/** Returns the types of the attestations of the image under the reference. */
function predicatesOf(reference = ''): readonly (string | undefined)[] {
  const [repository = ''] = reference.split('@');
  const { manifests = [] } = rawOf(reference);
  return manifests
    .filter(({ annotations }) => annotations?.['vnd.docker.reference.type'] === 'attestation-manifest')
    .flatMap(({ digest }) => rawOf(`${repository}@${digest}`).layers ?? [])
    .map(({ annotations }) => annotations?.['in-toto.io/predicate-type']);
}

const provenance = expect.stringMatching(/^https:\/\/slsa\.dev\/provenance\//);
const ofPrivate = { provenance: 'mode=min,inline-only=true' };

const builds: readonly (readonly [string, Inputs])[] = [
  ['in a public repository', {}],
  ['in a private repository, whose default is mode=min', ofPrivate],
  ...(noGo === undefined
    ? ([
        ['by BuildKit 0.34 in a private repository', { ...contained, ...ofPrivate }],
        ['by BuildKit 0.34', contained],
      ] as const)
    : []),
];
test.each(shareOf(builds, 0, 2))(
  'the same build pushes provenance, and hands over the same image without it, %s',
  async (title, inputs) => {
    const repository = `${registry.address}/org/attested-${String(title.length)}`;
    const exported = await exportOn(engines.containerd, { tags: `${repository}:1\n${repository}:2`, ...inputs });
    expect(exported.log).not.toContain('::error');
    expect(exported.log.match(/exporting to image$/gm)).toHaveLength(1);
    const pushed = exported.outputs['pushed-reference'] ?? '';
    expect(pushed).toBe(`${repository}@${exported.outputs['digest'] ?? 'no digest'}`);
    expect(rawOf(`${repository}:2`)).toEqual(rawOf(pushed));
    expect(predicatesOf(pushed)).toEqual([provenance]);

    const expected = { 'config-digest': exported.outputs['config-digest'] };
    for (const engine of [engines.classic, engines.containerd]) {
      const loaded = await loadOn(engine, { from: 'registry' });
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs).toMatchObject({ source: 'registry', ...expected });
    }
    engines.containerd.docker('image', 'rm', 'charon:local');
    const plain = await loadOn(engines.containerd, {});
    expect(plain.log).not.toContain('::error');
    expect(plain.outputs).toMatchObject({ 'image-id': rawOf(pushed).manifests?.[0]?.digest, ...expected });
    const here = await loadOn(engines.containerd, { from: 'registry' });
    expect(here.outputs).toMatchObject({ source: 'engine', loaded: 'false' });
  },
);

test.each([
  ['the default builder', {}],
  ...(noGo === undefined ? ([['BuildKit 0.34', { ...contained, tags: 'ghcr.io/org/charon:1' }]] as const) : []),
])(
  'provenance of a build by %s without a push is published after the test, and the loaded image has none (B.13)',
  async (_, more) => {
    const inputs = { push: 'false', provenance: 'mode=max', 'artifact-name': 'attested', ...more };
    const exported = await exportOn(engines.containerd, inputs);
    expect(exported.log).not.toContain('::error');
    const { digest = '', 'config-digest': config = '' } = exported.outputs;
    for (const engine of [engines.classic, engines.containerd]) {
      const loaded = await loadOn(engine, { 'artifact-name': 'attested', 'expected-config-digest': config });
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs['image-id']).not.toBe(digest);
    }
    await expectPublished('attested', digest);
  },
);

const cases = [
  ['of the default builder', [], ['--attest', 'type=provenance,mode=max'], 1],
  ['of a plain build', [], ['--provenance=false'], 0],
  ...(noGo === undefined
    ? ([['by BuildKit 0.34', ['--builder', contained.builder], ['--attest', 'type=provenance,mode=max'], 1]] as const)
    : []),
] as const;
test.each(cases)(
  'a layout %s, as docker/build-push-action writes it, is handed over with the digest of the build',
  async (title, builder, attest, count) => {
    const folder = mkdtempSync(join(engines.directory, 'built-'));
    const [layout, metadataFile] = [join(folder, 'layout'), join(folder, 'metadata.json')];
    const output = ['--output', `type=oci,tar=false,dest=${layout}`, '--metadata-file', metadataFile];
    const tag = ['--tag', 'app:1', '--platform', 'linux/amd64'];
    engines.containerd.docker('buildx', 'build', ...builder, ...tag, ...attest, ...output, newContext());
    const metadata: unknown = JSON.parse(readFileSync(metadataFile, 'utf8'));
    const artifact = `layout ${title}`;
    const inputs = { push: 'false', context: '.', 'source-layout': layout, 'artifact-name': artifact };
    const exported = await exportOn(engines.containerd, inputs);
    expect(exported.log).not.toContain('::error');
    const { digest = '', 'config-digest': config = '' } = exported.outputs;
    expect(exported.outputs['image']).toBe('app:1');
    expect(metadata).toMatchObject({ 'containerimage.digest': digest });
    for (const engine of [engines.classic, engines.containerd]) {
      const loaded = await loadOn(engine, { 'artifact-name': artifact, 'expected-config-digest': config });
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs['image']).toBe('app:1');
    }
    await expectPublished(artifact, digest, count);
  },
);

/** Publishes an artifact, and checks its digest and its attestations as buildx shows them. */
async function expectPublished(artifact: string, digest: string, provenances = 1): Promise<void> {
  const repository = `${registry.address}/org/published-${digest.slice(-8)}`;
  const inputs = { 'artifact-name': artifact, tags: `${repository}:1` };
  const published = await stepOn(service, engines.containerd, 'publish-image', inputs, { jobId: 'publish' });
  expect(published.log).not.toContain('::error');
  expect(published.outputs['digest']).toBe(digest);
  const shown = ['imagetools', 'inspect', `${repository}:1`, '--format', '{{ json .Provenance }}'];
  const text = engines.containerd.docker('buildx', ...shown);
  expect(text.includes('buildType')).toBe(provenances > 0);
  expect(predicatesOf(`${repository}@${digest}`)).toEqual(Array.from({ length: provenances }, () => provenance));
}

test('`provenance: false` pushes the plain manifest', async () => {
  const exported = await exportOn(engines.containerd, { tags: `${registry.address}/org/plain:1`, provenance: 'false' });
  expect(rawOf(exported.outputs['pushed-reference'] ?? '').layers).toHaveLength(2);
});

test('attestations that the builder can’t create are an error before the build', async () => {
  for (const push of ['true', 'false']) {
    const inputs = { push, tags: `${registry.address}/org/none:1`, provenance: 'true' };
    const exported = await exportOn(engines.classic, inputs);
    expect(errorCode(exported)).toBe('builder-unsupported');
    expect(errorMessage(exported)).toContain('setup-buildx-action');
  }
});

const withGo = noGo === undefined ? describe : describe.skip;
withGo(`an SBOM by BuildKit 0.34${noGo === undefined ? '' : ` (left out: ${noGo})`}`, () => {
  const statement = { _type: 'https://in-toto.io/Statement/v0.1', predicateType: 'https://spdx.dev/Document' };

  /** Pushes a scanner whose result is always the same. */
  function pushScanner(): string {
    const scanner = join(engines.directory, 'scanner');
    mkdirSync(scanner);
    writeFileSync(join(scanner, 'sbom.json'), JSON.stringify({ ...statement, predicate: { packages: [] } }));
    const scan = 'cp /sbom.json $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json';
    const lines = [
      'FROM scratch',
      'COPY --from=rootfs / /',
      'COPY sbom.json /',
      `ENTRYPOINT ["/bin/sh","-c","${scan}"]`,
    ];
    writeFileSync(join(scanner, 'Dockerfile'), `${lines.join('\n')}\n`);
    const reference = `${registry.address}/org/scanner:1`;
    const rootfs = `--build-context=rootfs=${engines.rootFilesystem}`;
    engines.containerd.docker('buildx', 'build', '--push', `--tag=${reference}`, rootfs, scanner);
    return reference;
  }

  test('is pushed after the handover or published later, and a scanner that fails doesn’t affect the artifact (B.13)', async () => {
    const scanner = pushScanner();
    const inputs = { ...contained, tags: `${registry.address}/org/scanned:1` };
    const exported = await exportOn(engines.containerd, { ...inputs, sbom: `generator=${scanner}` });
    expect(exported.log).not.toContain('::error');
    const pushed = exported.outputs['pushed-reference'];
    expect([...predicatesOf(pushed)].sort()).toEqual([provenance, statement.predicateType]);

    const unpushed = { ...contained, push: 'false', sbom: `generator=${scanner}`, 'artifact-name': 'unpushed' };
    const { outputs } = await exportOn(engines.containerd, unpushed);
    const repository = `${registry.address}/org/later`;
    const publishing = { 'artifact-name': 'unpushed', tags: `${repository}:1` };
    const published = await stepOn(service, engines.containerd, 'publish-image', publishing, { jobId: 'publish' });
    expect(published.outputs['digest']).toBe(outputs['digest']);
    expect([...predicatesOf(`${repository}:1`)].sort()).toEqual([provenance, statement.predicateType]);

    const missing = { ...inputs, sbom: `generator=${scanner}0`, 'artifact-name': 'kept' };
    const failed = await exportOn(engines.containerd, missing);
    expect(failed.exitCode).toBe(1);
    expect(failed.outputs).toMatchObject({
      'run-integration': 'true',
      'artifact-name': 'kept',
      'pushed-reference': '',
    });
  });
});
