import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { LinkOptions } from '../__tests__/fakes/artifact-service/link.ts';
import { type ArtifactService, startArtifactService } from '../__tests__/fakes/artifact-service/service.ts';
import { testStore } from '../__tests__/fixtures/scenario.ts';
import { uploadBlob } from '../shared/artifacts/blob/blob-upload.ts';
import { rangedReader } from '../shared/artifacts/blob/ranged-reader.ts';
import { resultsService, serviceCredentials } from '../shared/artifacts/service/results-service.ts';
import { httpClient } from '../shared/http/client.ts';

// Measures slow connections. Compares uploads and downloads of 100 MB with and without a second request for slow parts, and with
// and without more parts at once. All sides take turns: `node dev/run.mjs bench/trickle.ts [rounds]`.

const megabytes = 100;
const rounds = Number(process.argv[2] ?? 100);
const { signal } = new AbortController();
const piece = randomBytes(1_000_000);
const pieces = (): Readable => Readable.from(Array.from({ length: megabytes }, () => piece));

/** Seconds, and the number of bytes sent for each byte needed. */
interface Run {
  readonly seconds: number;
  readonly sent: number;
}

/** Sends the data once. */
type Side = (service: ArtifactService, adapts: boolean) => Promise<Run>;

async function measured({ traffic }: ArtifactService, work: () => Promise<number>): Promise<Run> {
  const bytesSent = (): number => traffic.up + traffic.down;
  const [before, startedAt] = [bytesSent(), performance.now()];
  const bytes = await work();
  const seconds = (performance.now() - startedAt) / 1000;
  return { seconds, sent: (bytesSent() - before) / bytes };
}

const upload: Side = async (service, adapts) => {
  const http = httpClient({ except: '' }, signal);
  const { ACTIONS_RUNTIME_TOKEN: token = '', ACTIONS_RESULTS_URL: results = '' } = service.env();
  const calls = resultsService(http, serviceCredentials(token, results, 'GitHub'), () => undefined, signal);
  const url = await calls.create(`upload-${randomBytes(8).toString('hex')}`, undefined);
  const target = { http, url, onRetry: () => undefined, signal, adapts };
  const run = await measured(service, async () => (await uploadBlob(target, pieces(), () => undefined)).size);
  await http.close();
  return run;
};

const download: Side = async (service, adapts) => {
  const http = httpClient({ except: '' }, signal);
  const [{ blob, size } = { blob: '', size: 0 }] = service.artifacts;
  const sign = (): Promise<string> => Promise.resolve(service.signDownload(blob));
  const reader = rangedReader({ http, host: 'GitHub', size, sign, onRetry: () => undefined, signal, adapts });
  const run = await measured(service, async () => {
    let read = 0;
    for await (const part of reader.lend(0, size)) read += part.length;
    return read;
  });
  await http.close();
  return run;
};

/** Returns rows of the table: each side with and without adapting. */
async function race(name: string, link: LinkOptions, turns: number, sides: Record<string, Side>): Promise<string[]> {
  const service = await startArtifactService({ link });
  await using store = testStore(service);
  const file = { name: 'a.tar', size: megabytes * piece.length, chunks: pieces() };
  await store.upload({ name: 'a', retentionDays: 1, files: Readable.from([file]), onBytes: () => undefined });
  const all = Object.entries(sides).flatMap(([side, go]) =>
    [true, false].map((adapts) => ({ side, adapts, go, runs: new Array<Run>() })),
  );
  for (let turn = 0; turn < turns; turn += 1)
    for (const { go, adapts, runs } of all) runs.push(await go(service, adapts));
  await service.close();
  return all.map(({ side, adapts, runs }) => {
    const seconds = runs.map((run) => run.seconds);
    const sent = runs.reduce((sum, run) => sum + run.sent, 0) / runs.length;
    const times = [0.5, 0.99].map((part) => `${percentile(seconds, part).toFixed(1)} s`);
    return `| ${[name, side, adapts ? 'yes' : 'no', String(turns), ...times, `${(100 * (sent - 1)).toFixed(1)} %`].join(' | ')} |`;
  });
}

function percentile(numbers: readonly number[], part: number): number {
  const sorted = numbers.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? NaN;
}

const oneIsSlow = { bytesPerSecondPerConnection: 60_000_000, slow: { oneIn: 20, bytesPerSecond: 1_000_000 } };
const rows = [
  ...(await race('one connection in twenty at 1 MB/s, the others at 60', { ...oneIsSlow, latencyMs: 10 }, rounds, {
    download,
    upload,
  })),
  ...(await race(
    'every connection at 2 MB/s',
    { bytesPerSecondPerConnection: 2_000_000, latencyMs: 10 },
    Math.max(5, Math.ceil(rounds / 10)),
    { download },
  )),
  ...(await race(
    '12 MB/s for all connections',
    { bytesPerSecond: 12_000_000, latencyMs: 10 },
    Math.max(5, Math.ceil(rounds / 10)),
    {
      download,
    },
  )),
];
const table = [
  `${String(megabytes)} MB; both sides take turns:`,
  '',
  '| Link | | Adapts to it | Rounds | p50 | p99 | Bytes sent twice |',
  '| --- | --- | --- | --- | --- | --- | --- |',
  ...rows,
].join('\n');
writeFileSync(join(fileURLToPath(new URL('.', import.meta.url)), 'results/trickle.md'), `${table}\n`);
console.log(table);
