import type { Platform } from '../shared/image/platform.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import { endOfArchive, tarHeader, tarPadding } from '../shared/tar/header.ts';
import { chooseImage, contentsOf, imagesIn, type TarballImage } from '../shared/tar/tarball-images.ts';
import { type PassingEntry, readTarball, SeenTarball } from '../shared/tar/tarball-reader.ts';
import { archiveEntries, smallEntries, smallEntry } from '../shared/tar/tarball-writer.ts';
import { fallbackReference } from './plan/plan.ts';
import type { ExpectedImage } from './verify.ts';

/** What a tarball says of one image in it. */
export interface TarballContents {
  readonly expected: ExpectedImage;
  readonly references: readonly Reference[];
}

/** Without a record and a wish, a tarball may hold further images, each with a reference. */
export type AllContents = TarballContents & { readonly further: readonly TarballContents[] };

/** A tarball on its way from the artifact to the engine. */
export interface TarballStream {
  readonly chunks: AsyncIterable<Buffer>;
  /** What the tarball itself says of its images, once all of `chunks` has been taken. */
  image(): AllContents;
}

/** Which image of a tarball to load. */
export interface WantedImage {
  /** Undefined takes what the tarball has. */
  readonly reference: Reference | undefined;
  /** The engine's: which one of several platforms to take. */
  readonly platform: Platform;
}

/** An image of a tarball, and what it's called in the engine. */
interface NamedImage {
  readonly image: TarballImage;
  readonly references: readonly Reference[];
}

/**
 * A tarball of another maker, on its way to the engine: a Docker archive of any tool and age, or an OCI archive. Its layers
 * pass; what says which images there are is written by us, at the end. So the classic store loads OCI archives too, of
 * several platforms one is loaded, and the engine gets the references that are wanted and no others.
 * @param plain isn't compressed
 */
export function foreignTarball(plain: AsyncIterable<Buffer>, wanted: WantedImage): TarballStream {
  let images: readonly NamedImage[] = [];
  return {
    chunks: rewritten(plain, wanted, (found) => (images = found)),
    image: () => {
      const [first, ...further] = images.map(asExpected);
      if (first === undefined) throw new RangeError('asked for before the tarball has passed');
      return { ...first, further };
    },
  };
}

async function* rewritten(
  plain: AsyncIterable<Buffer>,
  wanted: WantedImage,
  told: (images: readonly NamedImage[]) => void,
): AsyncGenerator<Buffer> {
  const seen = new SeenTarball();
  for await (const entry of readTarball(plain, seen)) yield* wholeEntry(entry);
  const images = chooseImages(imagesIn(seen).images, wanted);
  told(images);
  for (const [name, bytes] of closingEntries(images)) yield smallEntry(name, bytes);
  yield endOfArchive;
}

async function* wholeEntry({ name, size, chunks }: PassingEntry): AsyncGenerator<Buffer> {
  yield tarHeader(name, size);
  yield* chunks;
  yield Buffer.alloc(tarPadding(size));
}

/** Without a wish all images that have a name, else the one that is meant. */
function chooseImages(images: readonly TarballImage[], { reference, platform }: WantedImage): readonly NamedImage[] {
  if (reference === undefined && images.every(({ references }) => references.length > 0)) {
    const firsts = new Map(
      images.flatMap((image) => image.references.slice(0, 1)).map((one) => [formatReference(one), one]),
    );
    return [...firsts.values()].map((first) => named(chooseImage(images, first, platform), undefined));
  }
  return [named(chooseImage(images, reference, platform), reference)];
}

function named(image: TarballImage, reference: Reference | undefined): NamedImage {
  const own = image.references.filter(({ tag }) => tag !== undefined);
  if (reference !== undefined) return { image, references: [reference] };
  return { image, references: own.length > 0 ? own : [fallbackReference] };
}

function closingEntries(images: readonly NamedImage[]): ReadonlyMap<string, Buffer> {
  const whole = images.flatMap(({ image, references }) => {
    const contents = contentsOf(image);
    return contents === undefined ? [] : [{ image: contents, references }];
  });
  if (whole.length === images.length) return smallEntries(whole);
  return archiveEntries(
    images.map(({ image, references }) => ({ ...image, layerNames: image.layers.map(({ name }) => name), references })),
  );
}

function asExpected({ image, references }: NamedImage): TarballContents {
  const contents = contentsOf(image);
  const manifestDigests = contents === undefined ? [] : [contents.manifestDigest];
  return { expected: { ...image.config, configDigest: image.configDigest, manifestDigests }, references };
}
