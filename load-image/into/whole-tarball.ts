import { asError, corruptArtifact, HandoverError, invalidTarball, messageOf } from '../../shared/base/errors.ts';
import { type LentChunk, type LentChunks, watchedChunks, withHead } from '../../shared/bytes/chunks.ts';
import { verifiedChunks } from '../../shared/bytes/verified.ts';
import {
  type OpenedArtifact,
  resolveTarball,
  tarballNameOf,
  type TarballResolvedImage,
} from '../../shared/handed-over/opened-artifact.ts';
import type { Platform } from '../../shared/image/platform.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { compressionOf, decompress, magicBytes } from '../../shared/tar/compression.ts';
import { imagesIn } from '../../shared/tar/tarball-images.ts';
import { readTarball, SeenTarball } from '../../shared/tar/tarball-reader.ts';
import { type NamedImage, tarballEnd, tarEntry } from '../../shared/tar/tarball-writer.ts';

// Rewrites an artifact's whole tarball for the engine. The tarball may come from export-image, or be a Docker archive of any tool and age,
// or an OCI archive, plain or compressed. The layers are passed on unchanged, and each is compared with the digest in its name. A new index
// and new manifests are written at the end. So the classic store can also load OCI archives, and the artifact can't set any reference in
// the engine.

/** An image in the tarball, and its temporary tag. */
type PassedImage = TarballResolvedImage & { readonly name: string };

/** A tarball that is sent from the artifact to the engine. */
export interface PassingTarball {
  readonly chunks: LentChunks;
  /** The tarball's images; empty until all of `chunks` has been read. */
  images(): readonly PassedImage[];
}

export interface TarballRequest {
  readonly opened: OpenedArtifact;
  /** Selects one of several platforms. */
  readonly platform: Platform;
  /** The repository of the temporary tags. */
  readonly repository: string;
  /** Passes on the file's bytes, unchanged from the artifact. */
  readonly tee?: ((chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>) | undefined;
  /** Passes on each layer, unchanged from the tarball. */
  readonly teeLayer?: ((chunks: LentChunks) => LentChunks) | undefined;
  /** Whether to reject an image without its own manifest. */
  readonly needsManifest?: boolean;
}

/**
 * @param onBytes called with the number of bytes of each part that has arrived
 * @throws HandoverError `artifact-corrupt`, `tarball-invalid`, `image-not-found`, and any error of the expectations, while iterating. The
 *   index and manifests are yielded only after the images are resolved.
 */
export function wholeTarball(request: TarballRequest, onBytes: (bytes: number) => void): PassingTarball {
  const { opened, tee } = request;
  const { content, record } = opened;
  const name = tarballNameOf(opened);
  const bytes = content.read(name, onBytes);
  const checked = record === undefined ? bytes : asRecorded(bytes, record, content.artifact.digest === undefined);
  let images: readonly PassedImage[] = [];
  const plain = plainTarball(tee === undefined ? checked : tee(checked), name);
  const chunks = rewritten(plain, request, (passed) => (images = passed));
  return { chunks, images: () => images };
}

/** Yields the tarball, decompressed if necessary. */
async function* plainTarball(chunks: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  let broken: unknown;
  const source = watchedChunks(chunks, (error) => (broken = error));
  const { head, all } = await withHead(source, magicBytes);
  if (head.length === 0) throw invalid(`${name} in the artifact is empty.`);
  const compression = compressionOf(head);
  if (compression === 'none') {
    yield* all;
    return;
  }
  try {
    yield* decompress(all, compression);
  } catch (error) {
    if (broken !== undefined) throw asError(broken);
    throw invalid(`${name} in the artifact is damaged ${compression} data: ${messageOf(error)}.`, error);
  }
}

/** Compares the size with the record. Also compares the digest if the artifact service returned none for the artifact. */
function asRecorded(
  chunks: AsyncIterable<Buffer>,
  { tarballSize: size, tarballDigest }: HandoverRecord,
  withDigest: boolean,
): AsyncIterable<Buffer> {
  const expected = { size, digest: withDigest ? tarballDigest : undefined };
  return verifiedChunks(chunks, expected, (found) => {
    const message =
      `The tarball has ${found.size > size ? 'at least ' : ''}${String(found.size)} bytes with digest ${found.digest ?? tarballDigest}; ` +
      `its record shows ${String(size)} bytes with digest ${tarballDigest}.`;
    return corruptArtifact(message);
  });
}

async function* rewritten(
  plain: AsyncIterable<Buffer>,
  { opened, platform, repository, teeLayer, needsManifest = false }: TarballRequest,
  onImages: (images: readonly PassedImage[]) => void,
): AsyncGenerator<LentChunk> {
  try {
    const seen = new SeenTarball();
    for await (const { name, size, chunks } of readTarball(plain, seen)) {
      yield* tarEntry(name, size, teeLayer === undefined ? chunks : teeLayer(chunks));
    }
    const resolved = resolveTarball(imagesIn(seen).images, opened, platform, needsManifest);
    const passed = resolved.map((image, at) => ({ ...image, name: `${repository}:${String(at + 1)}` }));
    onImages(passed);
    yield* tarballEnd(passed.map(namedImage));
  } catch (error) {
    const isCorrupt = error instanceof HandoverError && error.code === 'tarball-invalid' && opened.record !== undefined;
    if (!isCorrupt) throw error;
    // export-image wrote a valid tarball, so it was damaged in the artifact.
    throw corruptArtifact(error.message, error);
  }
}

function namedImage({ contents: image, name, layerNames }: PassedImage): NamedImage {
  return { image, references: [parseTaggedReference(name)], layerNames };
}

function invalid(message: string, cause?: unknown): HandoverError {
  return invalidTarball(
    message,
    'Make the tarball with docker save, plain or compressed with gzip or zstd, and upload it again.',
    cause,
  );
}
