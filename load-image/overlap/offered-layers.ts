import { Readable } from 'node:stream';
import type { ArtifactContent, ReadRange } from '../../shared/artifacts/store.ts';
import { isObject, parseJson, stringOr } from '../../shared/base/json.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { formatManifest, layerMediaType, mediaTypes } from '../../shared/image/manifest.ts';
import type { HandoverRecord, RecordLayer } from '../../shared/image/record.ts';
import { readSmallTar } from '../../shared/tar/entries.ts';
import { LayerTurns } from './layer-turns.ts';
import type { OfferedBlob, OfferedImage } from './loopback-registry.ts';
import { partialTarballChunks, planPartialTarball } from './partial-tarball.ts';
import type { PassingTarball } from './passing-tarball.ts';
import { type PlainLayer, plainLayerChunks, plainLayers } from './plain-layers.ts';

// Configs and manifests: some kilobytes.
const maxRestBytes = 8 * 1024 * 1024;

/** The image of an artifact, blob by blob. */
export interface OfferedLayers {
  /** The layers, each once. */
  readonly layers: ReadonlyMap<Digest, RecordLayer>;
  /** The tarball without them: an engine that has them takes it for the whole. */
  readonly rest: Buffer;
  /** Those that are offered in another form than they have in the tarball: unpacked. */
  readonly unpacked: ReadonlySet<Digest>;
  /** @param tarball gets those layers as they are in the tarball */
  readonly image: (watch: LayerWatch, tarball?: PassingTarball) => OfferedImage;
}

export interface LayerWatch {
  /** The engine asks for a layer, maybe not for the first time. */
  readonly onAsked: (digest: Digest) => void;
  /** So many bytes of a layer have come. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Reads all of the tarball but its layers, which can be read one by one then. Their bytes aren't checked here: who asks for
 * a blob by its digest checks it. Large gzip layers are offered unpacked (docs/decisions.md).
 * @returns undefined when the record doesn't tell where the layers lie, or the tarball lacks a manifest that it names
 * @throws HandoverError `transfer-failed`, `artifact-expired` or `artifact-corrupt`
 */
export async function offerLayers(
  content: ArtifactContent,
  record: HandoverRecord,
): Promise<OfferedLayers | undefined> {
  const bare = planPartialTarball(record, [record.diffIds]);
  if (bare === undefined || record.tarballSize - bare.skippedBytes > maxRestBytes) return undefined;
  const read = await content.ranges(record.tarballName);
  if (read === undefined) return undefined;
  const [plain, rest] = await Promise.all([
    plainLayers(record, read),
    copiedBytes(partialTarballChunks(bare, (start, end) => read(start, end, () => undefined))),
  ]);
  const small = await smallBlobs(rest);
  const config = small.get(record.configDigest);
  const manifestDigest = record.manifestDigests.find((digest) => small.has(digest));
  if (manifestDigest === undefined || config === undefined) return undefined;
  const layers = new Map(record.layers.map((layer) => [layer.digest, layer]));
  return {
    layers,
    rest,
    unpacked: new Set(plain.keys()),
    image: (watch, tarball) => {
      const blobs = new Map([...small, ...layerBlobs({ layers, plain, read }, watch, tarball)]);
      if (plain.size === 0) return { manifestDigest, blobs };
      const asOffered = record.layers.map((layer) => offeredAs(layer, plain));
      const { manifestBytes, ...other } = formatManifest({ digest: record.configDigest, size: config.size }, asOffered);
      return { manifestDigest: other.manifestDigest, blobs: blobs.set(other.manifestDigest, smallBlob(manifestBytes)) };
    },
  };
}

interface LayerParts {
  readonly layers: ReadonlyMap<Digest, RecordLayer>;
  readonly plain: ReadonlyMap<Digest, PlainLayer>;
  readonly read: ReadRange;
}

function layerBlobs(
  { layers, plain, read }: LayerParts,
  watch: LayerWatch,
  tarball: PassingTarball | undefined,
): readonly (readonly [Digest, OfferedBlob])[] {
  const turns = new LayerTurns();
  return [...layers.values()].map((layer, position) => {
    const { digest, size, mediaType } = offeredAs(layer, plain);
    const bytes = (): AsyncIterable<Buffer> => {
      const { offset = 0 } = layer;
      const stored = read(offset, offset + layer.size, watch.onBytes);
      return plain.has(layer.digest) ? plainLayerChunks(tarball?.pass(layer, stored) ?? stored, size) : stored;
    };
    const chunks = (): AsyncIterable<Buffer> => {
      watch.onAsked(layer.digest);
      return turns.pass(position, bytes);
    };
    return [digest, { size, mediaType, chunks }] as const;
  });
}

function offeredAs(
  layer: RecordLayer,
  plain: ReadonlyMap<Digest, PlainLayer>,
): Pick<RecordLayer, 'digest' | 'size' | 'mediaType'> {
  const unpacked = plain.get(layer.digest);
  return unpacked === undefined ? layer : { ...unpacked, mediaType: layerMediaType('uncompressed') };
}

/** Configs and manifests, by the digests that they have. */
async function smallBlobs(tarball: Buffer): Promise<ReadonlyMap<Digest, OfferedBlob>> {
  const blobs = new Map<Digest, OfferedBlob>();
  for (const [name, bytes] of await readSmallTar(tarball)) {
    if (!name.startsWith('blobs/sha256/')) continue;
    blobs.set(digestOf(bytes), smallBlob(bytes));
  }
  return blobs;
}

function smallBlob(bytes: Buffer): OfferedBlob {
  return { size: bytes.length, mediaType: mediaTypeOf(bytes), chunks: () => Readable.from([bytes]) };
}

// A manifest may name its type (OCI image-spec, manifest.md); a config never does.
function mediaTypeOf(bytes: Buffer): string {
  const value = parseJson(bytes.toString());
  if (!isObject(value)) return mediaTypes.config;
  return stringOr(value['mediaType'], value['layers'] === undefined ? mediaTypes.config : mediaTypes.manifest);
}
