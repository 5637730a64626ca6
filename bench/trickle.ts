import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { startArtifactService } from '../__tests__/fakes/artifact-service/service.ts';
import { testStore } from '../__tests__/fixtures/scenario.ts';
import { uploadBlob } from '../shared/artifacts/blob/blob-upload.ts';
import { rangedReader } from '../shared/artifacts/blob/ranged-reader.ts';
import { resultsService, serviceCredentials } from '../shared/artifacts/service/results-service.ts';
import { httpClient } from '../shared/http/client.ts';

// One of twenty connections is very slow. Compares uploads and downloads of 100 MB with and without a second request for slow parts.
// `node dev/run.mjs bench/trickle.ts [rounds]`; all sides take turns.

const megabytes = 100;
const rounds = Number(process.argv[2] ?? 100);
const link = { bytesPerSecondPerConnection: 60_000_000, latencyMs: 10, slow: { oneIn: 20, bytesPerSecond: 1_000_000 } };

const service = await startArtifactService({ link });
const { ACTIONS_RUNTIME_TOKEN: token = '', ACTIONS_RESULTS_URL: url = '' } = service.env();
const { signal } = new AbortController();
const store = testStore(service);
const piece = randomBytes(1_000_000);
const pieces = (): Readable => Readable.from(Array.from({ length: megabytes }, () => piece));
const file = { name: 'a.tar', size: megabytes * piece.length, chunks: pieces() };
await store.upload({ name: 'a', retentionDays: 1, files: Readable.from([file]), onBytes: () => undefined });
const [artifact] = service.artifacts;

/** Seconds, and the sent bytes for each needed byte. */
interface Run {
  readonly seconds: number;
  readonly sent: number;
}

async function measured(direction: 'up' | 'down', work: () => Promise<number>): Promise<Run> {
  const [before, startedAt] = [service.traffic[direction], performance.now()];
  const bytes = await work();
  const seconds = (performance.now() - startedAt) / 1000;
  return { seconds, sent: (service.traffic[direction] - before) / bytes };
}

async function upload(duplicates: boolean): Promise<Run> {
  const http = httpClient({ except: '' }, signal);
  const calls = resultsService(http, serviceCredentials(token, url), () => undefined, signal);
  const name = `upload-${randomBytes(8).toString('hex')}`;
  const target = { http, url: await calls.create(name, undefined), onRetry: () => undefined, signal, duplicates };
  const run = await measured('up', async () => (await uploadBlob(target, pieces(), () => undefined)).size);
  await http.close();
  return run;
}

async function download(duplicates: boolean): Promise<Run> {
  const http = httpClient({ except: '' }, signal);
  const size = artifact?.size ?? 0;
  const sign = (): Promise<string> => Promise.resolve(service.signDownload(artifact?.blob ?? ''));
  const reader = rangedReader({ http, size, sign, onRetry: () => undefined, signal, duplicates });
  const run = await measured('down', async () => {
    let read = 0;
    for await (const part of reader.lend(0, size)) read += part.length;
    return read;
  });
  await http.close();
  return run;
}

const sides = [
  { name: 'download, slow parts are requested again', go: () => download(true), runs: new Array<Run>() },
  { name: 'download, each part is requested once', go: () => download(false), runs: new Array<Run>() },
  { name: 'upload, slow blocks are sent again', go: () => upload(true), runs: new Array<Run>() },
  { name: 'upload, each block is sent once', go: () => upload(false), runs: new Array<Run>() },
];
for (let round = 0; round < rounds; round += 1) for (const { go, runs } of sides) runs.push(await go());

const percentile = (numbers: readonly number[], part: number): number =>
  numbers.toSorted((one, other) => one - other)[Math.min(numbers.length - 1, Math.floor(part * numbers.length))] ?? NaN;
const rows = sides.map(({ name, runs }) => {
  const seconds = runs.map((run) => run.seconds);
  const sent = runs.reduce((sum, run) => sum + run.sent, 0) / runs.length;
  return `| ${name} | ${percentile(seconds, 0.5).toFixed(1)} s | ${percentile(seconds, 0.99).toFixed(1)} s | ${(100 * (sent - 1)).toFixed(1)} % |`;
});
const table = [
  `${String(megabytes)} MB, ${String(rounds)} rounds in turns, 60 MB/s for a connection, 1 MB/s for one of twenty:`,
  '',
  '| | p50 | p99 | Bytes sent twice |',
  '| --- | --- | --- | --- |',
  ...rows,
].join('\n');
writeFileSync(join(fileURLToPath(new URL('.', import.meta.url)), 'results/trickle.md'), `${table}\n`);
console.log(table);
await store[Symbol.asyncDispose]();
await service.close();
