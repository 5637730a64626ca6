import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runStep } from '../dev/action-runner.ts';
import { build } from '../dev/build.ts';
import { provideBuildKit } from '../dev/buildkit-image.ts';
import { startDockerEngine } from '../dev/docker-engine.ts';
import { startRegistry } from '../dev/docker-registry.ts';
import { writeNoise } from '../dev/test-images.ts';
import { pushBase } from './base-image.ts';
import { removeOutputs } from './clean-slate.ts';
import { type Arena, docsRecipe, outputsOf, tunedRecipe, upload } from './contenders.ts';
import { median } from './measured.ts';
import { seconds, table } from './tables.ts';
import { sh, startService } from './world.ts';

// Measures the build job as users run it: a fresh builder, `cache-from: type=gha`, `cache-to: type=gha,mode=max`, and the
// artifact. Three jobs run in a row: everything is new, one layer has changed, nothing has changed. Artifacts and cache share one
// link of 100 MB/s with a latency of 100 ms per request. The contenders take turns.
// `node dev/run.mjs bench/build-cache.ts [--megabytes 1000] [--rounds 5]`.

const { values } = parseArgs({
  options: { megabytes: { type: 'string', default: '1000' }, rounds: { type: 'string', default: '5' } },
});
const [megabytes, rounds] = [Number(values.megabytes), Number(values.rounds)];
const limits = { bytesPerSecond: 100e6, bytesPerSecondPerConnection: 60e6, latencyMs: 100 };
const changedMegabytes = Math.ceil(megabytes / 50);
const jobs = [
  'everything is new',
  `a layer of ${String(changedMegabytes)} MB has changed`,
  'nothing has changed',
] as const;
const builder = 'fresh';

interface Sample {
  readonly ms: number;
  /** Time from the start until a job that waits for the artifact can load it. */
  readonly handedOverMs: number;
  /** Time of the cache export. Undefined if BuildKit itself exports the cache. */
  readonly cacheMs: number | undefined;
  readonly uploaded: number;
  readonly peakMemoryKb: number;
}

type Job = (arena: Arena, artifact: string) => Promise<Omit<Sample, 'ms' | 'uploaded'>>;

const jobEnv = ({ service, engine: { env } }: Arena): Readonly<Record<string, string>> => ({
  ...service.env,
  ...env,
  ACTIONS_CACHE_SERVICE_V2: 'true',
});

const ours: Job = async (arena, artifact) => {
  const began = performance.now();
  let handedOverMs = 0;
  const outcome = await runStep({
    action: 'export-image',
    inputs: {
      context: arena.context,
      builder,
      network: 'none',
      tarball: join(outputsOf(arena), 'ours.tar'),
      'cache-from': 'type=gha',
      'cache-to': 'type=gha,mode=max',
      'artifact-name': artifact,
    },
    env: jobEnv(arena),
    onOutput: (text) => {
      if (handedOverMs === 0 && text.includes('Waiting for the build cache')) handedOverMs = performance.now() - began;
    },
  });
  const { exitCode, annotations, log, peakMemoryKb } = outcome;
  if (exitCode !== 0 || annotations.length > 0) throw new Error(log.slice(-2000));
  const took = /Wrote the build cache in (?:(\d+) min )?([\d.]+) s/.exec(log);
  if (took === null) throw new Error(`The log contains no time of the cache:\n${log.slice(-2000)}`);
  const cacheMs = (Number(took[1] ?? 0) * 60 + Number(took[2])) * 1000;
  return { handedOverMs: handedOverMs === 0 ? performance.now() - began : handedOverMs, cacheMs, peakMemoryKb };
};

/** What docker/build-push-action runs, then actions/upload-artifact. */
const recipe =
  (level: number): Job =>
  async (arena, artifact) => {
    const began = performance.now();
    const file = join(outputsOf(arena), 'recipe.tar');
    const caches = ['--cache-from', 'type=gha', '--cache-to', 'type=gha,mode=max'];
    const output = ['--output', `type=docker,dest=${file}`, '-t', 'charon:local'];
    const plain = ['--provenance=false', '--sbom=false', '--network=none', '--builder', builder];
    await sh(jobEnv(arena), 'docker', 'buildx', 'build', ...plain, ...caches, ...output, arena.context);
    await upload(arena, artifact, file, level);
    return { handedOverMs: performance.now() - began, cacheMs: undefined, peakMemoryKb: 0 };
  };

const contenders = [
  ['ours', ours],
  [docsRecipe, recipe(6)],
  [tunedRecipe, recipe(0)],
] as const;

const folder = mkdtempSync(join(tmpdir(), 'bench-cache-'));
const context = join(folder, 'context');
const samples = new Map<string, Sample[]>();
const registry = await startRegistry();
const engine = await startDockerEngine({ store: 'containerd', name: 'build-cache' });

/** Writes a Dockerfile. One stage has text that compresses like source code. The image itself has data that can't be compressed. */
function writeContext(base: string): void {
  mkdirSync(context);
  const lines = `for (i = 0; i < ${String(megabytes * 6000)}; i++) print "export const value" i " = " rand() ";"`;
  const dockerfile = [
    `FROM ${base} AS modules`,
    `RUN mkdir /app && awk 'BEGIN { srand(1); ${lines} }' > /app/modules.js`,
    `FROM ${base}`,
    'COPY --from=modules /app /app',
    `RUN head -c ${String(megabytes * 250_000)} /dev/urandom > /opt/data`,
    'COPY app.bin /app/app.bin',
    'CMD ["true"]',
  ];
  writeFileSync(join(context, 'Dockerfile'), `${dockerfile.join('\n')}\n`);
}

/** Provides an empty builder, like that of each job on a hosted runner. */
async function freshBuilder(): Promise<void> {
  await sh(engine.env, 'docker', 'buildx', 'prune', '--builder', builder, '--all', '--force');
  await sh({}, 'sync');
}

async function turn(name: string, run: Job, round: number): Promise<void> {
  const service = await startService(limits, { tls: false });
  const arena: Arena = { service, engine, registry: registry.address, context, folder };
  for (const [position, job] of jobs.entries()) {
    if (position < 2) writeNoise(join(context, 'app.bin'), changedMegabytes, 10 * round + position);
    removeOutputs(arena);
    await freshBuilder();
    const [before, began] = [await service.uploaded(), performance.now()];
    const sample = await run(arena, `${job}-${String(position)}`.replaceAll(' ', '-'));
    const [ms, uploaded] = [performance.now() - began, (await service.uploaded()) - before];
    samples.set(`${name} ${job}`, [...(samples.get(`${name} ${job}`) ?? []), { ...sample, ms, uploaded }]);
    console.log(
      `round ${String(round)}, ${name}, ${job}: ${seconds(ms)} s, handed over in ${seconds(sample.handedOverMs)} s`,
    );
    await service.forget();
  }
  await service.stop();
}

function results(): string {
  const medianOf = (name: string, job: string, part: (sample: Sample) => number | undefined): number =>
    median((samples.get(`${name} ${job}`) ?? []).map((sample) => part(sample) ?? 0));
  const rows = jobs.flatMap((job) =>
    contenders.map(([name]) => {
      const [ms, handed] = [medianOf(name, job, (one) => one.ms), medianOf(name, job, (one) => one.handedOverMs)];
      const all = (samples.get(`${name} ${job}`) ?? []).map((one) => one.ms);
      const part = (whole: string): string => (ms / medianOf(whole, job, (one) => one.ms)).toFixed(2);
      const cache = medianOf(name, job, (one) => one.cacheMs);
      const peak = Math.max(...(samples.get(`${name} ${job}`) ?? []).map((one) => one.peakMemoryKb));
      return [
        ...[job, name, `${seconds(ms)} s`, `${seconds(Math.min(...all))}–${seconds(Math.max(...all))}`],
        ...[part(docsRecipe), part(tunedRecipe), `${seconds(handed)} s`, cache === 0 ? '' : `${seconds(cache)} s`],
        ...[
          `${(medianOf(name, job, (one) => one.uploaded) / 1e6).toFixed(0)} MB`,
          peak === 0 ? '' : `${(peak / 1000).toFixed(0)} MB`,
        ],
      ];
    }),
  );
  const names = [
    'Job',
    '',
    'Median',
    'Spread (s)',
    'Ratio to the docs recipe',
    'Ratio to the tuned recipe',
    'Image handed over after',
    'Cache',
    'Uploaded',
    'Peak memory',
  ];
  const day = new Date().toISOString().slice(0, 10);
  const title = `#### Build job with \`cache-to: type=gha,mode=max\`, ${String(megabytes)} MB image, BuildKit in a container, ${String(rounds)} rounds, ${day}`;
  return `${title}\n\n${table(names, rows)}\n`;
}

try {
  await build();
  await provideBuildKit(engine);
  const create = ['buildx', 'create', '--driver', 'docker-container', '--driver-opt', 'network=host'];
  await sh(engine.env, 'docker', ...create, '--name', builder, '--bootstrap');
  const base = await pushBase(registry.address, megabytes, folder);
  writeContext(base);
  for (let round = 1; round <= rounds; round += 1) {
    const turns = [...contenders.slice(round % 3), ...contenders.slice(0, round % 3)];
    for (const [name, run] of round % 2 === 1 ? turns : turns.reverse()) await turn(name, run, round);
  }
  console.log(`\n${results()}`);
  writeFileSync(fileURLToPath(new URL('results/build-cache.md', import.meta.url)), results());
} finally {
  await sh(engine.env, 'docker', 'buildx', 'rm', builder).catch(() => undefined);
  await engine.stop();
  await registry.stop();
  rmSync(folder, { recursive: true, force: true });
}
