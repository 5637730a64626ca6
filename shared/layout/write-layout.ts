import { mkdir, open, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { invalidTarball } from '../base/errors.ts';
import { copiedBytes, type LentChunks, withHead } from '../bytes/chunks.ts';
import { writeAll } from '../bytes/files.ts';
import { Checksum } from '../bytes/verified.ts';
import { type Digest, hexOf, parseDigest } from '../image/digest.ts';
import { formatManifest, layerMediaType, parseArchiveManifest } from '../image/manifest.ts';
import { tarEntries } from '../tar/entries.ts';
import { looksLikeTar, tarBlock } from '../tar/header.ts';
import { compressLayer, type LayerCompression } from './compress-layer.ts';
import { blobPath, type ReplacedLayer } from './read-layout.ts';

const top = /^(?:oci-layout|index\.json)$/;
const blob = /^blobs\/sha256\/([0-9a-f]{64})$/;
// A Docker archive of podman: layers by diff ID, uncompressed, and the config.
const archiveBlob = /^([0-9a-f]{64})\.(?:tar|json)$/;
const archiveManifest = 'manifest.json';

/**
 * Unpacks a tarball into a folder as an OCI layout, and compresses its uncompressed layers. Reads the tar that `docker save` writes since
 * Docker 25, which is an OCI layout, and the Docker archive of `podman save`. Skips all other entries, so no path can leave the folder.
 * @returns the compressed layers, by their digest in the layout's manifest
 * @throws HandoverError `tarball-invalid` for the format of older engines; errors of `chunks`
 */
export async function writeOciLayout(
  chunks: LentChunks,
  layout: string,
  compression: LayerCompression,
): Promise<ReadonlyMap<Digest, ReplacedLayer>> {
  await mkdir(join(layout, 'blobs', 'sha256'), { recursive: true });
  const replaced = new Map<Digest, ReplacedLayer>();
  const seen = { index: false, entries: 0 };
  let archive: Buffer | undefined;
  const takeEntry = async (name: string, content: LentChunks): Promise<void> => {
    seen.entries += 1;
    seen.index ||= name === 'index.json';
    const digest = parseDigest(`sha256:${(blob.exec(name) ?? archiveBlob.exec(name))?.[1] ?? ''}`);
    if (digest !== undefined) {
      const layer = await writeBlob(content, layout, digest, compression);
      if (layer !== undefined) replaced.set(digest, layer);
    } else if (name === archiveManifest) archive = await copiedBytes(content);
    else if (top.test(name)) await writeFile(join(layout, name), await copiedBytes(content));
  };
  for await (const { name, isFile, content } of tarEntries(chunks)) await takeEntry(isFile ? name : '', content);
  if (seen.index) return replaced;
  if (archive !== undefined && (await writeIndexOf(archive, layout, replaced))) return new Map();
  throw invalidTarball(
    `docker save wrote ${String(seen.entries)} entries without an index.json: the engine is older than Docker 25.`,
    'Update Docker on this runner, or run docker save yourself and give the file as `source-tarball`.',
  );
}

/** Writes the manifest and the index for the one image of podman's archive; false when it is another kind of archive. */
async function writeIndexOf(
  archive: Buffer,
  layout: string,
  replaced: ReadonlyMap<Digest, ReplacedLayer>,
): Promise<boolean> {
  const [image] = parseArchiveManifest(archive, archiveManifest);
  const digests = [image?.config ?? '', ...(image?.layers ?? [])].flatMap(
    (name) => parseDigest(`sha256:${archiveBlob.exec(name)?.[1] ?? ''}`) ?? [],
  );
  const [config, ...layers] = await Promise.all(digests.map((digest) => describe(layout, digest, replaced)));
  if (config === undefined || layers.length !== image?.layers.length) return false;
  const { bytes, digest, mediaType } = formatManifest(config, layers);
  await placeBlob(layout, digest, bytes);
  const manifest = { mediaType, digest, size: bytes.length };
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
  return true;
}

async function describe(
  layout: string,
  digest: Digest,
  replaced: ReadonlyMap<Digest, ReplacedLayer>,
): Promise<ReplacedLayer> {
  const layer = replaced.get(digest);
  if (layer !== undefined) return layer;
  const found = await stat(blobPath(layout, digest)).catch(() => undefined);
  return { digest, size: found?.size ?? 0, mediaType: layerMediaType('uncompressed') };
}

async function writeBlob(
  content: LentChunks,
  layout: string,
  digest: Digest,
  compression: LayerCompression,
): Promise<ReplacedLayer | undefined> {
  const { head, all } = await withHead(content, tarBlock);
  if (compression.format === 'uncompressed' || !looksLikeTar(head)) {
    await placeBlob(layout, digest, all);
    return undefined;
  }
  const partial = partialPath(layout, digest);
  const checksum = new Checksum();
  const file = await open(partial, 'wx');
  try {
    for await (const part of compressLayer(all, compression)) {
      checksum.add(part);
      await writeAll(file, part);
    }
  } finally {
    await file.close();
  }
  const compressed = checksum.found();
  await rename(partial, blobPath(layout, compressed.digest));
  return { ...compressed, mediaType: layerMediaType(compression.format) };
}

/** A blob is renamed into place when it is whole: others read it from then on (arriving-layers.ts). */
async function placeBlob(layout: string, digest: Digest, content: Buffer | LentChunks): Promise<void> {
  const partial = partialPath(layout, digest);
  if (Buffer.isBuffer(content)) await writeFile(partial, content);
  else await writeChunks(partial, content);
  await rename(partial, blobPath(layout, digest));
}

async function writeChunks(path: string, chunks: LentChunks): Promise<void> {
  const file = await open(path, 'w');
  try {
    for await (const chunk of chunks) await writeAll(file, chunk);
  } finally {
    await file.close();
  }
}

function partialPath(layout: string, digest: Digest): string {
  return join(layout, `partial-${hexOf(digest)}`);
}
