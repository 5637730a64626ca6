import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { testStore } from '../__tests__/fixtures/scenario.ts';
import { startArtifactService } from '../__tests__/fakes/artifact-service/service.ts';
import { httpClient } from '../shared/http/client.ts';
import { rangedReader } from '../shared/artifacts/blob/ranged-reader.ts';
import { Readable } from 'node:stream';

// One of twenty connections is very slow. Compares downloads of 100 MB with and without a second request for slow parts.
// `node dev/run.mjs bench/trickle.ts`; both sides take turns.

const megabytes = 100;
const rounds = 15;
const link = { bytesPerSecondPerConnection: 60_000_000, latencyMs: 10, slow: { oneIn: 20, bytesPerSecond: 1_000_000 } };

const service = await startArtifactService({ link });
const { signal } = new AbortController();
const store = testStore(service);
const piece = randomBytes(1_000_000);
const chunks = Readable.from(Array.from({ length: megabytes }, () => piece));
const file = { name: 'a.tar', size: megabytes * piece.length, chunks };
await store.upload({ name: 'a', retentionDays: 1, files: Readable.from([file]), onBytes: () => undefined });
const [artifact] = service.artifacts;

/** Downloads the artifact. Returns the seconds, and the sent bytes for each needed byte. */
async function download(duplicates: boolean): Promise<{ readonly seconds: number; readonly sent: number }> {
  const http = httpClient({ except: '' }, signal);
  const size = artifact?.size ?? 0;
  const sign = (): Promise<string> => Promise.resolve(service.signDownload(artifact?.blob ?? ''));
  const reader = rangedReader({ http, size, sign, onRetry: () => undefined, signal, duplicates });
  const [before, startedAt] = [service.traffic.down, performance.now()];
  let read = 0;
  for await (const part of reader.lend(0, size)) read += part.length;
  const seconds = (performance.now() - startedAt) / 1000;
  await http.close();
  return { seconds, sent: (service.traffic.down - before) / read };
}

type Run = Awaited<ReturnType<typeof download>>;
const sides: Readonly<Record<'with' | 'without', Run[]>> = { with: [], without: [] };
for (let round = 0; round < rounds; round += 1) {
  sides.with.push(await download(true));
  sides.without.push(await download(false));
}
const percentile = (numbers: readonly number[], part: number): number =>
  numbers.toSorted((one, other) => one - other)[Math.min(numbers.length - 1, Math.floor(part * numbers.length))] ?? NaN;
const row = (name: string, runs: readonly Run[]): string => {
  const seconds = runs.map((run) => run.seconds);
  const sent = runs.reduce((sum, run) => sum + run.sent, 0) / runs.length;
  return `| ${name} | ${percentile(seconds, 0.5).toFixed(1)} s | ${percentile(seconds, 0.99).toFixed(1)} s | ${(100 * (sent - 1)).toFixed(1)} % |`;
};
const table = [
  `${String(megabytes)} MB, ${String(rounds)} rounds in turns, 60 MB/s for a connection, 1 MB/s for one of twenty:`,
  '',
  '| | p50 | p99 | Bytes sent twice |',
  '| --- | --- | --- | --- |',
  row('slow parts are requested again', sides.with),
  row('each part is requested once', sides.without),
].join('\n');
writeFileSync(join(fileURLToPath(new URL('.', import.meta.url)), 'results/trickle.md'), `${table}\n`);
console.log(table);
await store[Symbol.asyncDispose]();
await service.close();
