import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import { type Engines, startArtifactService, startEngines, stepOn } from '../fixtures/engines.ts';

let engines: Engines;
let service: ArtifactService;
beforeAll(async () => void (engines = await startEngines()), 120_000);
afterAll(() => engines.stop(), 60_000);
afterEach(() => service.close());

const base = 8_000_000;

/** A build context whose first layers stay the same, whatever the application's text is. */
function writeContext(folder: string, text: string): string {
  const context = join(engines.directory, folder, text);
  cpSync(engines.rootFilesystem, join(context, 'rootfs'), { recursive: true, verbatimSymlinks: true });
  writeFileSync(join(context, 'app.txt'), text);
  const noise = `RUN head -c ${String(base)} /dev/urandom > /noise`;
  writeFileSync(
    join(context, 'Dockerfile'),
    `FROM scratch\nCOPY rootfs /\n${noise}\nCOPY app.txt /app.txt\nCMD ["cat", "/app.txt"]\n`,
  );
  return context;
}

test.each([
  ['classic', 'classic'],
  ['containerd', 'classic'],
  ['classic', 'containerd'],
  ['containerd', 'containerd'],
] as const)(
  'S4.3: from %s to %s, the second version sends only what the store lacks, and runs',
  async (from, to) => {
    service = await startArtifactService({ tls: true });
    const tarball = join(engines.directory, 'charon.tar');
    for (const text of ['one', 'two']) {
      const inputs = { context: writeContext(`${from}-${to}`, text), network: 'host', tarball, 'artifact-name': text };
      const exported = await stepOn(service, engines[from], 'export-image', inputs);
      expect(exported.log).not.toContain('::error');
      const loaded = await stepOn(service, engines[to], 'load-image', { 'artifact-name': text });
      expect(loaded.log).not.toContain('::error');
      expect(engines[to].docker('run', '--rm', '--network=none', 'charon:local')).toBe(text);
      const size = Number(loaded.outputs['size']);
      if (text === 'two') expect(size).toBeLessThan(100_000);
      // The containerd store has what its own BuildKit made.
      else expect(size > base).toBe(from === 'classic' || to === 'classic');
    }
    engines[to].docker('image', 'rm', '-f', 'charon:local');
    engines[to].docker('image', 'prune', '-f');
  },
  120_000,
);
