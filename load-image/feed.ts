import type { ArtifactContent } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/base/errors.ts';
import type { Log, TotalBytes } from '../shared/base/log.ts';
import type { LentChunks } from '../shared/bytes/chunks.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import type { ImageContents } from '../shared/image/manifest.ts';
import type { Reference } from '../shared/image/reference.ts';
import type { NamedImage } from '../shared/tar/tarball-writer.ts';
import type { Identity, KnownImage } from '../shared/handed-over/identity.ts';
import { type OwnNames, ownNames } from '../shared/docker/own-names.ts';
import { fetchOverlapped } from './overlap/overlap.ts';
import { chooseRecorded, wholeTarball } from './whole-tarball.ts';

// How an artifact's images get into the engine: layer by layer where that can be done (overlap/), else as a whole tarball
// (whole-tarball.ts). Either way they come under random names of ours, which nobody else has, and keep those until they have
// been proved and named; whatever goes wrong before that touches no name of anybody's.

export interface FeedJob {
  readonly content: ArtifactContent;
  readonly record: HandoverRecord | undefined;
  /** The images, where they are known already. */
  readonly known: readonly KnownImage[] | undefined;
  readonly info: EngineInfo;
  /** The reference asked for. */
  readonly reference: Reference | undefined;
  /** Whether the engine may fetch layers one by one. */
  readonly overlap: boolean;
  /** Sees the tarball as it is in the artifact; undefined when no file is wanted. */
  readonly tee: ((chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>) | undefined;
  /** Sees each layer of the tarball; undefined when no layout is wanted. */
  readonly teeLayer?: ((chunks: LentChunks) => LentChunks) | undefined;
}

/** An image that is in the engine, not yet proved. */
export interface ArrivedImage {
  /** What the engine knows it by: a name of ours. */
  readonly name: string;
  readonly identity: Identity;
  /** What it is to be called. */
  readonly references: readonly Reference[];
  /** What it consists of, where all of it has passed by here. */
  readonly contents?: ImageContents;
}

/** The one that is meant first, and what came with it. */
export type ArrivedImages = readonly [ArrivedImage, ...ArrivedImage[]];

/** Images in the engine. Their names of ours go when this is disposed of, and with them what has got no other name. */
export interface Arrival extends AsyncDisposable {
  readonly images: ArrivedImages;
  /** Bytes that were downloaded, also by an attempt that came to nothing. */
  readonly size: number;
}

interface FeedTools {
  readonly engine: Engine;
  readonly log: Log;
}

type OnBytes = (bytes: number) => void;

/** @throws HandoverError `load-failed`, `artifact-corrupt`, `transfer-failed`, `tarball-invalid`, `image-not-found` */
export async function feed(tools: FeedTools, job: FeedJob): Promise<Arrival> {
  let size = 0;
  const onBytes = (bytes: number): void => {
    size += bytes;
  };
  await using held = new AsyncDisposableStack();
  const names = held.use(await ownNames(tools));
  const images = (await byLayers(tools, job, names, onBytes)) ?? (await asWhole(tools, job, names, onBytes));
  const kept = held.move();
  return { images, size, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** @returns undefined when the whole tarball has to be sent */
async function byLayers(
  { engine, log }: FeedTools,
  { content, record, known, info, reference, overlap, tee, teeLayer }: FeedJob,
  names: OwnNames,
  onBytes: OnBytes,
): Promise<ArrivedImages | undefined> {
  // A file or a layout is wanted whole.
  if (!overlap || known === undefined || record === undefined || (tee ?? teeLayer) !== undefined) return undefined;
  const read = await content.ranges(record.tarballName);
  if (read === undefined) return undefined;
  const arrived: ArrivedImage[] = [];
  for (const { chosen, references } of chooseRecorded(known, reference)) {
    const { contents, layers, identity } = chosen;
    if (contents === undefined || layers === undefined) return undefined;
    const request = { image: { contents, layers, read }, names, word: wordFor(content), onBytes };
    const name = await fetchOverlapped({ engine, log, info }, request);
    if (name === undefined) return undefined;
    arrived.push({ name, identity, references });
  }
  const [first, ...further] = arrived;
  return first === undefined ? undefined : [first, ...further];
}

async function asWhole(
  { engine, log }: FeedTools,
  { content, record, known, info, reference, tee, teeLayer }: FeedJob,
  names: OwnNames,
  onBytes: OnBytes,
): Promise<ArrivedImages> {
  const { platform } = info;
  const request = { content, record, known, reference, platform, repository: names.repository, tee, teeLayer };
  return log.progress(wordFor(content), wholeSize(content, record), async (passed) => {
    const tarball = wholeTarball(request, (bytes) => {
      onBytes(bytes);
      passed(bytes);
    });
    const loaded = await engine
      .load(tarball.chunks, () => undefined)
      .finally(() => {
        for (const { loadedAs } of tarball.images()) names.add(loadedAs);
      });
    const images = tarball.images().map(({ loadedAs, ...image }) => ({ ...image, name: loadedAs }));
    const [first, ...further] = images;
    if (first === undefined) throw nothingLoaded(engine, loaded);
    return [first, ...further];
  });
}

/** The images for an OCI layout: each under one name, so that a layout of one image needs none. */
export function layoutImages(images: readonly Pick<ArrivedImage, 'contents' | 'references'>[]): readonly NamedImage[] {
  return images.flatMap(({ contents, references }) =>
    contents === undefined ? [] : [{ image: contents, references: references.slice(0, 1) }],
  );
}

/** What the log calls it when bytes of the artifact pass to the engine. */
export function wordFor({ downloaded }: ArtifactContent): string {
  return downloaded() === undefined ? 'Downloaded' : 'Read from this machine';
}

/** Bytes of the tarball, as far as they are known. */
export function wholeSize(content: ArtifactContent, record: HandoverRecord | undefined): TotalBytes {
  // Where it isn't here, the artifact's digest takes reading all of it.
  const total = content.downloaded() === undefined ? content.artifact.size : record?.tarballSize;
  return total ?? 'unknown';
}

function nothingLoaded({ program }: Engine, loaded: readonly string[]): HandoverError {
  return new HandoverError(
    'load-failed',
    `${program} load ended before it had the whole tarball; it reported ${loaded.join(', ') || 'nothing'}.`,
    `Look at the engine on this runner: ${program} info; df -h.`,
  );
}
