import { Readable } from 'node:stream';
import type { ArtifactContent } from '../shared/artifacts/store.ts';
import { type Digest, digestOf } from '../shared/image/digest.ts';
import { mediaTypes } from '../shared/image/manifest.ts';
import type { OfferedBlob, OfferedImage } from '../shared/image/offered-image.ts';
import type { HandoverRecord, RecordLayer } from '../shared/image/record.ts';
import { readSmallTar } from '../shared/image/small-tar.ts';
import { isObject, parseJson, stringOr } from '../shared/json.ts';
import { LayerTurns } from './layer-turns.ts';
import { partialTarballChunks, planPartialTarball } from './partial-tarball.ts';

// Configs and manifests: some kilobytes.
const maxRestBytes = 8 * 1024 * 1024;

/** The image of an artifact, blob by blob. */
export interface OfferedLayers {
  /** The layers, each once. */
  readonly layers: ReadonlyMap<Digest, RecordLayer>;
  /** The tarball without them: an engine that has them takes it for the whole. */
  readonly rest: Buffer;
  readonly image: (watch: LayerWatch) => OfferedImage;
}

export interface LayerWatch {
  /** The engine asks for a layer, maybe not for the first time. */
  readonly onAsked: (digest: Digest) => void;
  /** So many bytes of a layer have come. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Reads all of the tarball but its layers, which can be read one by one then. Their bytes aren't checked here: who asks for
 * a blob by its digest checks it.
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
  const rest = await copyOf(partialTarballChunks(bare, (start, end) => read(start, end, () => undefined)));
  const small = await smallBlobs(rest);
  const manifestDigest = record.manifestDigests.find((digest) => small.has(digest));
  if (manifestDigest === undefined) return undefined;
  const layers = new Map(record.layers.map((layer) => [layer.digest, layer]));
  const image = ({ onAsked, onBytes }: LayerWatch): OfferedImage => {
    const turns = new LayerTurns();
    const blobs = new Map(small);
    for (const [position, { digest, size, mediaType, offset = 0 }] of [...layers.values()].entries()) {
      const chunks = (): AsyncIterable<Buffer> => {
        onAsked(digest);
        return turns.pass(position, () => read(offset, offset + size, onBytes));
      };
      blobs.set(digest, { size, mediaType, chunks });
    }
    return { manifestDigest, blobs };
  };
  return { layers, rest, image };
}

async function copyOf(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const copies: Buffer[] = [];
  for await (const chunk of chunks) copies.push(Buffer.from(chunk));
  return Buffer.concat(copies);
}

/** Configs and manifests, by the digests that they have. */
async function smallBlobs(tarball: Buffer): Promise<ReadonlyMap<Digest, OfferedBlob>> {
  const blobs = new Map<Digest, OfferedBlob>();
  for (const [name, bytes] of await readSmallTar(tarball)) {
    if (!name.startsWith('blobs/sha256/')) continue;
    blobs.set(digestOf(bytes), {
      size: bytes.length,
      mediaType: mediaTypeOf(bytes),
      chunks: () => Readable.from([bytes]),
    });
  }
  return blobs;
}

// A manifest may name its type (OCI image-spec, manifest.md); a config never does.
function mediaTypeOf(bytes: Buffer): string {
  const value = parseJson(bytes.toString());
  if (!isObject(value)) return mediaTypes.config;
  return stringOr(value['mediaType'], value['layers'] === undefined ? mediaTypes.config : mediaTypes.manifest);
}
