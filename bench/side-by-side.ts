import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startArtifactService } from '../__tests__/fakes/artifact-service/service.ts';
import { makeImage } from '../__tests__/fixtures/image.ts';
import { handOverMade } from '../__tests__/fixtures/lying-artifact.ts';
import { runStep } from '../dev/action-runner.ts';
import { build } from '../dev/build.ts';
import { median } from './measured.ts';

// Measures ten loads of one artifact that start within one second, in ten processes that share one link. `node dev/run.mjs bench/side-by-side.ts [rounds]`.
// Nothing is loaded into an engine, because a single engine would be the bottleneck.

const rounds = Number(process.argv[2] ?? 5);
const loads = 10;
const image = makeImage({ layers: 3, layerBytes: 10_000_000, gzip: false });

await build();
const service = await startArtifactService({ link: { bytesPerSecond: 60_000_000, latencyMs: 10 } });
const folder = mkdtempSync(join(tmpdir(), 'ih-side-by-side-'));
await handOverMade(service, image);

/** Returns how long the load took, in seconds. */
async function load(number: number): Promise<number> {
  await sleep((1000 / loads) * number);
  const startedAt = performance.now();
  const inputs = { into: 'none', tarball: join(folder, `${String(number)}.tar`) };
  const { exitCode, log } = await runStep({
    action: 'load-image',
    inputs,
    env: service.env({ jobId: `load-${String(number)}` }),
  });
  if (exitCode !== 0) throw new Error(log);
  return (performance.now() - startedAt) / 1000;
}

const rows: string[] = [];
for (let round = 0; round < rounds; round += 1) {
  const seconds = await Promise.all(Array.from({ length: loads }, (_, number) => load(number)));
  const [middle, most] = [median(seconds), Math.max(...seconds)];
  rows.push(`| ${[middle, most].map((time) => `${time.toFixed(1)} s`).join(' | ')} | ${(most / middle).toFixed(2)} |`);
}
await service.close();
rmSync(folder, { recursive: true });
const table = ['| Median | Slowest | Slowest / median |', '| --- | --- | --- |', ...rows].join('\n');
writeFileSync(join(fileURLToPath(new URL('.', import.meta.url)), 'results/side-by-side.md'), `${table}\n`);
console.log(table);
