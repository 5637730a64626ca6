import { randomBytes } from 'node:crypto';
import { inPool } from '../../base/pool.ts';
import { type LentChunks, pieces } from '../../bytes/chunks.ts';
import { Checksum, checksummed, type Found } from '../../bytes/verified.ts';
import { readText } from '../../http/answer.ts';
import type { Http } from '../../http/client.ts';
import { again, type Retries } from '../../http/retry.ts';
import { type Part, type PartOptions, parts } from './slow-parts.ts';

// Uses Put Block and Put Block List of the Blob service REST API: the artifact service's signed URLs point there.
const apiVersion = '2024-11-04';
const blockBytes = 4 * 1024 * 1024;
const blocksInFlight = 8;

export interface UploadTarget extends Retries, PartOptions {
  readonly http: Http;
  /** A signed URL that may create and write the blob. */
  readonly url: string;
  /** Default: the content type of an artifact. */
  readonly contentType?: string;
  /** Number of 4 MiB blocks uploaded at a time. Default: 8. */
  readonly maxConcurrent?: number;
}

/**
 * Uploads chunks as one blob while they are produced, several blocks of 4 MiB at a time.
 * @param onBytes called with each block's number of bytes after it has been uploaded
 * @throws HttpError or a connection error after the last retry; errors of `chunks`
 */
export async function uploadBlob(
  target: UploadTarget,
  chunks: LentChunks,
  onBytes: (bytes: number) => void,
): Promise<Found> {
  const checksum = new Checksum();
  // Forgejo and Gitea before 1.26 store a block by run, length and id, so two uploads of a run must use different ids.
  const upload = randomBytes(6).toString('hex');
  const ids: string[] = [];
  const free: Buffer[] = [];
  const all = parts(target);
  /** For each block in flight, the blocks that started after it. */
  const later = new Set<Part[]>();
  await inPool(
    pieces(checksummed(chunks, checksum), blockBytes, free),
    target.maxConcurrent ?? blocksInFlight,
    async (bytes, failed) => {
      if (bytes.length === 0) return;
      // Blocks arrive here in order. All ids of a blob must have the same length (Put Block, "Remarks").
      const id = Buffer.from(`${upload}${String(ids.length).padStart(6, '0')}`).toString('base64');
      const start = ids.length * blockBytes;
      ids.push(id);
      // A refused block cancels the others.
      const signal = AbortSignal.any([target.signal, failed]);
      const what = `Bytes ${String(start)}-${String(start + bytes.length)} of the upload`;
      const query = { comp: 'block', blockid: id };
      const block = all.request(
        async (abandoned, timed) => {
          const ends = { ...target, signal: AbortSignal.any([signal, abandoned]) };
          await again('part', () => timed(() => put(ends, query, bytes)), { ...ends, what });
          return bytes;
        },
        // The service accepts the same bytes for the same id in any order.
        async (abandoned) => {
          target.onRetry(`${what} take far longer than their neighbours: sending them again.`);
          await put({ ...target, signal: AbortSignal.any([signal, abandoned]) }, query, bytes);
          return bytes;
        },
      );
      for (const started of later) started.push(block);
      const startedLater: Part[] = [];
      later.add(startedLater);
      await all.firstResponse(block, startedLater).finally(() => later.delete(startedLater));
      onBytes(bytes.length);
      free.push(Buffer.from(bytes.buffer));
    },
  );
  await putBlockList(target, ids);
  return checksum.found();
}

function putBlockList(target: UploadTarget, ids: readonly string[]): Promise<void> {
  const list = ids.map((id) => `<Latest>${id}</Latest>`).join('');
  const body = `<?xml version="1.0" encoding="utf-8"?><BlockList>${list}</BlockList>`;
  const headers = {
    'content-type': 'application/xml',
    'x-ms-blob-content-type': target.contentType ?? 'application/zip',
  };
  const request = (): Promise<void> => put(target, { comp: 'blocklist' }, body, headers);
  return again('part', request, { ...target, what: 'The end of the upload' });
}

async function put(
  { http, url, signal }: UploadTarget,
  query: Readonly<Record<string, string>>,
  body: Buffer | string,
  more: Readonly<Record<string, string>> = {},
): Promise<void> {
  const headers = { 'x-ms-version': apiVersion, ...more };
  await readText(await http.send({ method: 'PUT', url: withQuery(url, query), headers, body, signal }));
}

function withQuery(url: string, query: Readonly<Record<string, string>>): string {
  const result = new URL(url);
  for (const [name, value] of Object.entries(query)) result.searchParams.set(name, value);
  return result.href;
}
