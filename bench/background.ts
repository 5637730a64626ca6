import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startArtifactService } from '../__tests__/fakes/artifact-service/service.ts';
import { makeImage } from '../__tests__/fixtures/image.ts';
import { handOverMade } from '../__tests__/fixtures/lying-artifact.ts';
import { projectRoot, runStep } from '../dev/action-runner.ts';
import { build } from '../dev/build.ts';
import { startDockerEngine } from '../dev/docker-engine.ts';
import { median } from './measured.ts';
import { table } from './tables.ts';

// Measures what `background: true` saves. A job installs its packages (`npm ci` of this project, from npm's cache) and loads a
// 240 MB image, one after the other or side by side. Both take turns: `node dev/run.mjs bench/background.ts [rounds]`.

const rounds = Number(process.argv[2] ?? 5);
const image = makeImage({ layers: 3, layerBytes: 80_000_000, gzip: false });
const folder = mkdtempSync(join(tmpdir(), 'ih-background-'));

await build();
const engine = await startDockerEngine({ store: 'containerd', name: 'background' });
const service = await startArtifactService({ link: { bytesPerSecond: 100_000_000, latencyMs: 10 } });
await handOverMade(service, image);
for (const name of ['package.json', 'package-lock.json', '.npmrc']) cpSync(join(projectRoot, name), join(folder, name));

async function install(): Promise<void> {
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'];
  const child = spawn('npm', args, { cwd: folder, stdio: 'ignore' });
  await once(child, 'exit');
  const code = child.exitCode;
  if (code !== 0) throw new Error(`npm ci failed with exit code ${String(code)}`);
}

async function load(): Promise<void> {
  const env = { ...service.env({ jobId: 'test' }), ...engine.env };
  const { exitCode, log } = await runStep({ action: 'load-image', env });
  if (exitCode !== 0) throw new Error(log);
}

/** Returns the seconds that the work took. Removes the image and the packages afterwards. */
async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  engine.docker('image', 'rm', '--force', 'charon:local');
  rmSync(join(folder, 'node_modules'), { recursive: true, force: true });
  return seconds;
}

const ways = {
  'only the packages': install,
  'one after the other': () => install().then(load),
  'side by side': () => Promise.all([install(), load()]),
};
const times = new Map(Object.keys(ways).map((name) => [name, new Array<number>()]));
// The first run fills npm's cache.
await timed(ways['one after the other']);
for (let round = 0; round < rounds; round += 1)
  for (const [name, work] of Object.entries(ways)) times.get(name)?.push(await timed(work));
await Promise.all([service.close(), engine.stop()]);
rmSync(folder, { recursive: true });
const rows = [...times].map(([name, seconds]) => {
  const spread = [Math.min(...seconds), Math.max(...seconds)].map((time) => time.toFixed(1)).join('–');
  return [name, `${median(seconds).toFixed(1)} s`, spread];
});
const results = table(['', 'Median', 'Spread (s)'], rows);
writeFileSync(join(fileURLToPath(new URL('.', import.meta.url)), 'results/background.md'), `${results}\n`);
console.log(results);
