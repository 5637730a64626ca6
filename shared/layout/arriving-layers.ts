import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LentChunk, LentChunks } from '../bytes/chunks.ts';
import { fileHead, openFile, readSmallFile, transientFileChunks } from '../bytes/files.ts';
import { verifiedChunks } from '../bytes/verified.ts';
import { type Digest, parseDigest } from '../image/digest.ts';
import { invalidLayout } from '../image/manifest.ts';
import { blobPath } from './read-layout.ts';
import { looksLikeJson, tarBlock } from '../tar/header.ts';
import type { ArrivingLayer } from '../tar/tarball-writer.ts';

/**
 * Returns a function for polling files that another process writes. Call it before each check: it waits between checks, and returns
 * whether to check again. The last check is after the writer has ended, so that nothing is missed.
 * @param written settles when the writer has ended; its error is thrown
 */
function untilWritten(written: Promise<unknown>, waitMs: number): () => Promise<boolean> {
  let [isFirst, isLast] = [true, false];
  const over = new AbortController();
  const { signal } = over;
  const end = (): void => over.abort();
  written.then(end, end);
  return async () => {
    if (isLast) return false;
    if (!isFirst) await sleep(waitMs, undefined, { signal }).catch(() => undefined);
    isFirst = false;
    isLast = signal.aborted;
    if (isLast) await written;
    return true;
  };
}

const growEveryMs = 10;

/** The digest and size of a layer's blob, from its name and its writer. */
type LayerBlob = Omit<ArrivingLayer, 'chunks'>;

/** @param wholePath the file's path once it is complete */
async function* growingFileChunks(
  path: string,
  wholePath: string,
  blob: LayerBlob,
  written: Promise<unknown>,
): AsyncGenerator<LentChunk> {
  const file = await openFile(path).catch(() => openFile(wholePath));
  const look = untilWritten(written, growEveryMs);
  const grows = (bytes: number): Promise<boolean> => (bytes < blob.size ? look() : Promise.resolve(false));
  yield* verified(blob, wholePath, transientFileChunks(file, grows));
}

/** Verifies a layer's file. Throws `tarball-invalid` if its size or digest has changed. */
function verified(blob: LayerBlob, path: string, chunks: LentChunks): LentChunks {
  const { size, digest } = blob;
  return verifiedChunks(chunks, blob, (found) =>
    found.size === size
      ? invalidLayout(`The layer ${digest} in the OCI layout holds other bytes (${found.digest ?? ''}).`)
      : invalidLayout(`${path} changed while it was read: ${String(found.size)} bytes instead of ${String(size)}.`),
  );
}

const lookEveryMs = 25;

type Growing = ArrivingLayer & { readonly arrived: number };

/**
 * Returns the layers of an OCI layout that is being written, each once: complete layers first, then the layer with the most bytes
 * written so far, which is read while it grows. The writer must rename a complete layer into place, as BuildKit's client (containerd,
 * plugins/content/local/writer.go) and writeOciLayout do.
 * @param written settles when the layout is written; its error ends the iteration
 */
export async function* arrivingLayers(layout: string, written: Promise<unknown>): AsyncGenerator<ArrivingLayer> {
  const look = untilWritten(written, lookEveryMs);
  const seen = new Set<Digest>();
  const next = async (): Promise<ArrivingLayer | undefined> => {
    for await (const layer of completeLayers(layout, seen)) return layer;
    return growingLayer(layout, seen, written);
  };
  while (await look()) {
    for (let layer; (layer = await next()) !== undefined;) {
      seen.add(layer.digest);
      yield layer;
    }
  }
  await written;
}

/**
 * Returns the complete layers of an OCI layout, by digest.
 * @param seen blobs to skip. Blobs that are not layers are added to it.
 */
export async function* completeLayers(layout: string, seen: Set<Digest>): AsyncGenerator<ArrivingLayer> {
  const names = await readdir(join(layout, 'blobs', 'sha256')).catch(() => []);
  for (const name of names.sort()) {
    const digest = parseDigest(name);
    if (digest === undefined || seen.has(digest)) continue;
    const path = blobPath(layout, digest);
    // Configs and manifests are JSON objects.
    if (looksLikeJson(await fileHead(path, tarBlock))) seen.add(digest);
    else yield storedBlob(layout, { digest, size: (await stat(path)).size });
  }
}

/** Returns the given blobs of a complete OCI layout, each once. */
export function layoutBlobs(layout: string, blobs: readonly LayerBlob[]): readonly ArrivingLayer[] {
  return [...new Map(blobs.map((blob) => [blob.digest, storedBlob(layout, blob)])).values()];
}

function storedBlob(layout: string, { digest, size }: LayerBlob): ArrivingLayer {
  const path = blobPath(layout, digest);
  return { digest, size, chunks: () => verified({ digest, size }, path, transientFileChunks(path)) };
}

async function growingLayer(
  layout: string,
  seen: ReadonlySet<Digest>,
  written: Promise<unknown>,
): Promise<ArrivingLayer | undefined> {
  const folder = join(layout, 'ingest');
  const names = await readdir(folder).catch(() => []);
  const found = await Promise.all(names.map((name) => readIngest(layout, join(folder, name), written)));
  return found
    .filter((layer) => layer !== undefined)
    .filter(({ digest, arrived }) => arrived > 0 && !seen.has(digest))
    .sort((one, other) => other.arrived / other.size - one.arrived / one.size)[0];
}

/** Reads the state of a layer that containerd's content store is writing (plugins/content/local/store.go). Undefined for other blobs. */
async function readIngest(layout: string, folder: string, written: Promise<unknown>): Promise<Growing | undefined> {
  const path = join(folder, 'data');
  const read = async (name: string): Promise<string> => (await readSmallFile(join(folder, name), 4096)).toString();
  const files = [read('ref'), read('total'), stat(path)] as const;
  // It may have been renamed or only just created. The next check shows more.
  const [ref, total, { size: arrived }] = await Promise.all(files).catch(() => ['', '', { size: 0 }] as const);
  const digest = parseDigest(/^layer-(.*)$/.exec(ref)?.[1] ?? '');
  const size = /^[1-9]\d{0,15}$/.test(total) ? Number(total) : 0;
  if (digest === undefined || size === 0) return undefined;
  const wholePath = blobPath(layout, digest);
  return { digest, size, arrived, chunks: () => growingFileChunks(path, wholePath, { digest, size }, written) };
}

/** Waits for the first item, then returns all items. Throws an error that occurs before the first item. */
export async function begun<T>(items: AsyncGenerator<T>): Promise<AsyncIterable<T>> {
  const first = await items.next();
  return (async function* () {
    if (first.done !== true) yield first.value;
    yield* items;
  })();
}
