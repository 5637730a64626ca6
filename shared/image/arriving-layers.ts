import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Digest, parseDigest } from './digest.ts';
import { growingFileChunks, wholeFileChunks, wholeLayerSize } from './layer-file.ts';
import { blobPath } from './oci-layout.ts';
import { untilWritten } from './until-written.ts';

const lookEveryMs = 25;

/** A layer in an OCI layout that is being written. */
export interface ArrivingLayer {
  readonly digest: Digest;
  /** Bytes, of the whole. */
  readonly size: number;
  /** In chunks of at most 1 MiB, each valid until the next is asked for. */
  readonly chunks: () => AsyncIterable<Buffer>;
}

type Growing = ArrivingLayer & { readonly arrived: number };

/**
 * The layers of an OCI layout that is being written, each once: those that are whole first, else the one that is furthest
 * along, whose bytes then come while it's written. Whoever writes one renames it into place when it is whole: BuildKit's
 * client does (containerd, plugins/content/local/writer.go), and so does writeOciLayout.
 * @param written settles when the layout is written; its failure ends the iteration
 */
export async function* arrivingLayers(layout: string, written: Promise<unknown>): AsyncGenerator<ArrivingLayer> {
  const look = untilWritten(written, lookEveryMs);
  const seen = new Set<Digest>();
  const next = async (): Promise<ArrivingLayer | undefined> =>
    (await wholeLayer(layout, seen)) ?? growingLayer(layout, seen, written);
  while (await look()) {
    for (let layer; (layer = await next()) !== undefined;) {
      seen.add(layer.digest);
      yield layer;
    }
  }
  await written;
}

async function wholeLayer(layout: string, seen: Set<Digest>): Promise<ArrivingLayer | undefined> {
  const names = await readdir(join(layout, 'blobs', 'sha256')).catch(() => []);
  for (const name of names.sort()) {
    const digest = parseDigest(name);
    if (digest === undefined || seen.has(digest)) continue;
    const path = blobPath(layout, digest);
    const size = await wholeLayerSize(path);
    if (size !== undefined) return { digest, size, chunks: () => wholeFileChunks(path, size) };
    seen.add(digest);
  }
  return undefined;
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

/** A blob that containerd's content store is writing (its plugins/content/local/store.go); undefined for what is no layer. */
async function readIngest(layout: string, folder: string, written: Promise<unknown>): Promise<Growing | undefined> {
  const path = join(folder, 'data');
  const files = [readFile(join(folder, 'ref'), 'utf8'), readFile(join(folder, 'total'), 'utf8'), stat(path)] as const;
  // It may be renamed or just begun: the next look sees more.
  const [ref, total, { size: arrived }] = await Promise.all(files).catch(() => ['', '', { size: 0 }] as const);
  const digest = parseDigest(/^layer-(.*)$/.exec(ref)?.[1] ?? '');
  const size = /^[1-9]\d{0,15}$/.test(total) ? Number(total) : 0;
  if (digest === undefined || size === 0) return undefined;
  const file = { path, wholePath: blobPath(layout, digest), size };
  return { digest, size, arrived, chunks: () => growingFileChunks(file, written) };
}

/** The same items, once the first one is there or it is known that there is none. Throws what the items throw until then. */
export async function begun<T>(items: AsyncGenerator<T>): Promise<AsyncIterable<T>> {
  const first = await items.next();
  return (async function* () {
    if (first.done !== true) yield first.value;
    yield* items;
  })();
}
