import { mkdir, open, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { constants, createZstdCompress, gzip, type ZstdCompress } from 'node:zlib';
import { invalidTarball } from '../base/errors.ts';
import { copiedBytes, type LentChunk, type LentChunks, pieces, withHead } from '../bytes/chunks.ts';
import { writeAll } from '../bytes/files.ts';
import { Checksum } from '../bytes/verified.ts';
import { blobDigest, type Digest, hexOf, parseDigest } from '../image/digest.ts';
import {
  type BlobDescriptor,
  formatManifest,
  type LayerCompression,
  layerMediaType,
  parseArchiveManifest,
} from '../image/manifest.ts';
import { tarEntries } from '../tar/entries.ts';
import { looksLikeTar, tarBlock } from '../tar/header.ts';
import { blobPath, type ReplacedLayers } from './read-layout.ts';

const top = /^(?:oci-layout|index\.json)$/;
const archiveManifest = 'manifest.json';

/**
 * Unpacks a tarball into a folder as an OCI layout, and compresses its uncompressed layers. Reads the tar that `docker save` has written since
 * Docker 25, which is an OCI layout, and the Docker archive of `podman save`. Skips all other entries, so no path can point outside the folder.
 * @returns the compressed layers, by their digest in the layout's manifest
 * @throws HandoverError `tarball-invalid` for the format of older engines; errors of `chunks`
 */
export async function writeOciLayout(
  chunks: LentChunks,
  layout: string,
  compression: LayerCompression,
): Promise<ReplacedLayers> {
  await mkdir(join(layout, 'blobs', 'sha256'), { recursive: true });
  const replaced = new Map<Digest, BlobDescriptor>();
  let [hasIndex, entries] = [false, 0];
  let archive: Buffer | undefined;
  for await (const { name, isFile, content } of tarEntries(chunks)) {
    entries += 1;
    if (!isFile) continue;
    hasIndex ||= name === 'index.json';
    const digest = blobDigest(name) ?? archiveDigest(name);
    if (digest !== undefined) {
      const layer = await writeBlob(content, layout, digest, compression);
      if (layer !== undefined) replaced.set(digest, layer);
    } else if (name === archiveManifest) archive = await copiedBytes(content);
    else if (top.test(name)) await writeFile(join(layout, name), await copiedBytes(content));
  }
  if (hasIndex) return replaced;
  if (archive !== undefined && (await writeIndexOf(archive, layout, replaced))) return new Map();
  throw invalidTarball(
    `docker save wrote ${String(entries)} entries without an index.json: the engine is older than Docker 25.`,
    'Update Docker on this runner, or run docker save yourself and give the file as `source-tarball`.',
  );
}

/** Writes the manifest and the index for the only image of podman's archive. Returns false for another kind of archive. */
async function writeIndexOf(archive: Buffer, layout: string, replaced: ReplacedLayers): Promise<boolean> {
  const [image] = parseArchiveManifest(archive, archiveManifest);
  const digests = [image?.config ?? '', ...(image?.layers ?? [])].flatMap((name) => archiveDigest(name) ?? []);
  const [config, ...layers] = await Promise.all(digests.map((digest) => describe(layout, digest, replaced)));
  if (config === undefined || layers.length !== image?.layers.length) return false;
  const { bytes, digest, mediaType } = formatManifest(config, layers);
  await placeBlob(layout, digest, bytes);
  const manifest = { mediaType, digest, size: bytes.length };
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
  return true;
}

// podman's Docker archive contains the config and the uncompressed layers, named by diff ID.
function archiveDigest(name: string): Digest | undefined {
  return parseDigest(/^([0-9a-f]{64})\.(?:tar|json)$/.exec(name)?.[1] ?? '');
}

async function describe(layout: string, digest: Digest, replaced: ReplacedLayers): Promise<BlobDescriptor> {
  const found = await stat(blobPath(layout, digest)).catch(() => undefined);
  const stored = { digest, size: found?.size ?? 0, mediaType: layerMediaType('uncompressed') };
  return replaced.get(digest) ?? stored;
}

async function writeBlob(
  content: LentChunks,
  layout: string,
  digest: Digest,
  { format, level }: LayerCompression,
): Promise<BlobDescriptor | undefined> {
  const { head, all } = await withHead(content, tarBlock);
  if (format === 'uncompressed' || !looksLikeTar(head)) {
    await placeBlob(layout, digest, all);
    return undefined;
  }
  const partial = partialPath(layout, digest);
  const checksum = new Checksum();
  await writeChunks(partial, compressLayer(all, format, level), checksum);
  const compressed = checksum.found();
  await rename(partial, blobPath(layout, compressed.digest));
  return { ...compressed, mediaType: layerMediaType(format) };
}

/** Renames a blob into place when it is complete. From then on it may be read (arriving-layers.ts). */
async function placeBlob(layout: string, digest: Digest, content: Buffer | LentChunks): Promise<void> {
  const partial = partialPath(layout, digest);
  if (Buffer.isBuffer(content)) await writeFile(partial, content);
  else await writeChunks(partial, content);
  await rename(partial, blobPath(layout, digest));
}

async function writeChunks(path: string, chunks: LentChunks, checksum?: Checksum): Promise<void> {
  const file = await open(path, 'w');
  try {
    for await (const chunk of chunks) {
      checksum?.add(chunk);
      await writeAll(file, chunk);
    }
  } finally {
    await file.close();
  }
}

function partialPath(layout: string, digest: Digest): string {
  return join(layout, `partial-${hexOf(digest)}`);
}

/** Compresses one frame after another. Each is a complete file of its format. */
interface FrameCompressor {
  compress(frame: Buffer): Promise<readonly Buffer[]>;
  /** Frees its memory. */
  close(): void;
}

const frameBytes = 2 * 1024 * 1024;
const gzipFrame = promisify(gzip);

/** @param level undefined for the compressor's own default */
function gzipCompressor(level: number | undefined): FrameCompressor {
  // The buffer has room for the whole result; otherwise Node returns from its thread for every 16 KiB. Incompressible data grows
  // by less than a thousandth.
  const chunkSize = frameBytes + 64 * 1024;
  return {
    compress: async (frame) => [await gzipFrame(frame, { chunkSize, level })],
    close: () => undefined,
  };
}

const zstdChunkBytes = 2304 * 1024;

/**
 * Reuses zstd's memory from frame to frame. Allocating it for each frame, as `zlib.zstdCompress` does, keeps the garbage collector
 * busy (docs/decisions/0013-memory-is-used-again-up-and-down.md).
 * @param level undefined for the compressor's own default
 */
function zstdCompressor(level: number | undefined): FrameCompressor {
  const params = level === undefined ? {} : { [constants.ZSTD_c_compressionLevel]: level };
  // Each write makes a separate frame (zstd.h, ZSTD_EndDirective). zstd compresses it in one pass if the remaining space holds
  // the longest possible result, so a chunk has room for more than one frame.
  const stream = createZstdCompress({ flush: constants.ZSTD_e_end, chunkSize: zstdChunkBytes, params });
  let parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  return {
    compress: async (frame) => {
      await written(stream, frame);
      const result = parts;
      parts = [];
      return result;
    },
    close: () => stream.destroy(),
  };
}

async function written(stream: ZstdCompress, frame: Buffer): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    stream.once('error', reject);
    stream.write(frame, (error) => {
      stream.off('error', reject);
      if (error) reject(error);
      else resolve();
    });
  });
  // By now all output has been emitted, unless the stream was about to emit it.
  while (stream.readableLength > 0) await turn();
}

// As many as the threads in Node's pool. More would only use memory.
const framesInFlight = 4;

/**
 * Compresses a layer's tar in parallel, as consecutive independent frames of 2 MiB each. The result is a valid gzip
 * (RFC 1952 section 2.2) or zstd (RFC 8878 section 3) file. Node's own parallel zstd truncates its output (nodejs/node#59899).
 * Keeps at most nine frames in memory.
 */
async function* compressLayer(chunks: LentChunks, format: 'gzip' | 'zstd', level?: number): AsyncGenerator<LentChunk> {
  const newCompressor = (): FrameCompressor => (format === 'gzip' ? gzipCompressor(level) : zstdCompressor(level));
  const pool: Buffer[] = [];
  const compressors: FrameCompressor[] = [];
  const waiting: Promise<readonly Buffer[]>[] = [];
  try {
    // An empty layer gets one empty frame, because zero bytes are not a valid file of the format.
    for await (const frame of pieces(chunks, frameBytes, pool)) {
      const compressor = compressors.pop() ?? newCompressor();
      const compressed = compressor.compress(frame).finally(() => {
        pool.push(Buffer.from(frame.buffer));
        compressors.push(compressor);
      });
      compressed.catch(() => undefined); // thrown below, when it is awaited
      waiting.push(compressed);
      const first = waiting.length >= framesInFlight ? waiting.shift() : undefined;
      if (first !== undefined) yield* await first;
    }
    for (const compressed of waiting) yield* await compressed;
  } finally {
    await Promise.allSettled(waiting);
    for (const compressor of compressors) compressor.close();
  }
}
