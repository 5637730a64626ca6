import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { HandoverError } from '../errors.ts';
import { withHead } from '../stream-head.ts';
import { type Digest, parseDigest } from './digest.ts';
import type { LayerCompression } from './layer-compression.ts';
import { layerMediaType } from './layer-format.ts';
import { LayoutBlobs } from './layout-blobs.ts';
import { formatManifest, parseArchiveManifest } from './manifest.ts';
import { blobPath } from './oci-layout.ts';
import type { ReplacedLayer } from './replaced-layer.ts';
import { tarEntries } from './tar-entries.ts';
import { looksLikeTar, tarBlock } from './tar-header.ts';

const top = /^(?:oci-layout|index\.json)$/;
const blob = /^blobs\/sha256\/([0-9a-f]{64})$/;
// A Docker archive of podman: layers by diff ID, uncompressed, and the config.
const archiveBlob = /^([0-9a-f]{64})\.(?:tar|json)$/;
const archiveManifest = 'manifest.json';

/** A tar that somebody sends. The signal is aborted when its end has come: who sends it needn't be waited for any longer. */
export type TarSource = (whole: AbortSignal) => AsyncIterable<Buffer>;

/**
 * Unpacks the tar that `docker save` writes since Docker 25 (it is an OCI layout), or the Docker archive of `podman save`,
 * into a folder as an OCI layout, and compresses the layers that aren't compressed yet. Anything in it that isn't part of an OCI layout is passed over, so no path can leave the folder.
 * @param ahead a tar of the same form with some of the layers, which comes sooner; it may be cut, or empty
 * @returns the layers that were compressed, by the digest that the manifest in the layout has for them
 * @throws HandoverError `tarball-invalid` for the format of older engines; whatever `saved` throws
 */
export async function writeOciLayout(
  saved: TarSource,
  layout: string,
  compression: LayerCompression,
  ahead?: AsyncIterable<Buffer>,
): Promise<ReadonlyMap<Digest, ReplacedLayer>> {
  await mkdir(join(layout, 'blobs', 'sha256'), { recursive: true });
  const blobs = new LayoutBlobs(layout, compression);
  const over = new AbortController();
  const taken = ahead === undefined ? undefined : takeAhead(ahead, blobs, over.signal);
  try {
    return await takeAll(saved, layout, blobs);
  } finally {
    over.abort();
    await taken;
  }
}

async function takeAll(
  saved: TarSource,
  layout: string,
  blobs: LayoutBlobs,
): Promise<ReadonlyMap<Digest, ReplacedLayer>> {
  const replaced = new Map<Digest, ReplacedLayer>();
  const seen = { index: false, entries: 0 };
  let archive = '';
  const takeEntry = async (name: string, content: AsyncIterable<Buffer>): Promise<void> => {
    seen.entries += 1;
    seen.index ||= name === 'index.json';
    const digest = digestOfBlob(name);
    if (digest !== undefined) {
      const layer = await takeBlob(digest, content, blobs);
      if (layer !== undefined) replaced.set(digest, layer);
    } else if (name === archiveManifest) archive = await text(content);
    else if (top.test(name)) await writeFile(join(layout, name), content);
  };
  const whole = new AbortController();
  const entries = tarEntries(saved(whole.signal), () => {
    whole.abort();
  });
  for await (const { name, isFile, content } of entries) await takeEntry(isFile ? name : '', content);
  if (seen.index) return replaced;
  if (await writeIndexOf(archive, layout, blobs, replaced)) return new Map();
  throw new HandoverError(
    'tarball-invalid',
    `docker save wrote ${String(seen.entries)} entries without an index.json: the engine is older than Docker 25.`,
    'Update Docker on this runner, or run docker save yourself and give the file as `source-tarball`.',
  );
}

async function takeBlob(
  digest: Digest,
  content: AsyncIterable<Buffer>,
  blobs: LayoutBlobs,
): Promise<ReplacedLayer | undefined> {
  const { isLayer, all } = await lookAt(content);
  if (isLayer) return blobs.layer(digest, all);
  await blobs.place(digest, all);
  return undefined;
}

/** What isn't whole in the end comes again, with the image. */
async function takeAhead(chunks: AsyncIterable<Buffer>, blobs: LayoutBlobs, over: AbortSignal): Promise<void> {
  try {
    for await (const { name, isFile, content } of tarEntries(chunks)) {
      if (over.aborted) return;
      const digest = isFile ? digestOfBlob(name) : undefined;
      if (digest === undefined) continue;
      const { isLayer, all } = await lookAt(content);
      if (isLayer) await blobs.layer(digest, all);
    }
  } catch {
    // A cut tar, or a full disk: the image's own tar will tell.
  }
}

async function lookAt(
  content: AsyncIterable<Buffer>,
): Promise<{ readonly isLayer: boolean; readonly all: AsyncIterable<Buffer> }> {
  const { head, all } = await withHead(content, (bytes) => bytes.length >= tarBlock);
  return { isLayer: looksLikeTar(head), all };
}

function digestOfBlob(name: string): Digest | undefined {
  return parseDigest(`sha256:${(blob.exec(name) ?? archiveBlob.exec(name))?.[1] ?? ''}`);
}

/** Writes the manifest and the index for the one image of podman's archive; false when it is another kind of archive. */
async function writeIndexOf(
  archive: string,
  layout: string,
  blobs: LayoutBlobs,
  replaced: ReadonlyMap<Digest, ReplacedLayer>,
): Promise<boolean> {
  const [image] = archive === '' ? [] : parseArchiveManifest(archive, archiveManifest);
  const digests = [image?.config ?? '', ...(image?.layers ?? [])].flatMap(
    (name) => parseDigest(`sha256:${archiveBlob.exec(name)?.[1] ?? ''}`) ?? [],
  );
  const [config, ...layers] = await Promise.all(digests.map((digest) => describe(layout, digest, replaced)));
  if (config === undefined || layers.length !== image?.layers.length) return false;
  const { manifestBytes, manifestDigest, manifestMediaType } = formatManifest(config, layers);
  await blobs.place(manifestDigest, manifestBytes);
  const manifest = { mediaType: manifestMediaType, digest: manifestDigest, size: manifestBytes.length };
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
