import { posix } from 'node:path';
import { limits } from '../base/limits.ts';
import { HandoverError, messageOf } from '../base/errors.ts';
import { copiedBytes, type LentChunks, streamableChunks, watchedChunks, withHead } from '../bytes/chunks.ts';
import { Checksum, checksummed, drain } from '../bytes/verified.ts';
import { blobName, type Digest, digestOf, parseDigest } from '../image/digest.ts';
import { looksLikeJson } from './header.ts';
import { decompress, type Packing } from './compression.ts';
import { tarEntries, type TarLink } from './entries.ts';
import { tarBlock } from './header.ts';
import { layerPackingOf } from './layer-form.ts';

/** An entry on its way: a layer, or something as large as one. */
export interface PassingEntry {
  /** Its name in the tarball. */
  readonly path: string;
  /** Where it lies in a tarball of ours: `blobs/sha256/…` where its own name tells its digest, else a name of our making. */
  readonly name: string;
  /** Known before it has passed only where its own name tells it; checked when it has. */
  readonly digest: Digest | undefined;
  /** Bytes. */
  readonly size: number;
  /** Where its content begins in the tarball, in bytes: a tar may have two entries of one name. */
  readonly offset: number;
  readonly packing: Packing;
  readonly chunks: LentChunks;
}

/** An entry that has passed or was kept. */
export interface SeenEntry {
  /** Its name in the tarball. */
  readonly path: string;
  /** The name that it was given out under, or would have been. */
  readonly name: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Where its content begins in the tarball, in bytes. */
  readonly offset: number;
  /** Undefined when it can't be a layer. */
  readonly packing: Packing | undefined;
  /** The content, of an entry that looks like JSON and isn't too large. Such a one wasn't given out. */
  readonly bytes?: Buffer;
}

type KeptEntry = SeenEntry & { readonly bytes: Buffer };

function isKept(entry: SeenEntry): entry is KeptEntry {
  return entry.bytes !== undefined;
}

/** What was in a tarball, by the names that its own index uses. */
export class SeenTarball {
  readonly #entries = new Map<string, SeenEntry>();
  readonly #blobs = new Map<Digest, SeenEntry>();
  readonly #links = new Map<string, string>();
  readonly #diffIds = new Map<string, Digest>();
  #jsonBytes = 0;
  #unnamed = 0;

  /** What stands under a name in the tar, or where links under that name lead. */
  find(name: string): SeenEntry | undefined {
    let path = pathOf(name);
    for (let steps = 0; steps < limits.tarLinks; steps += 1) {
      const target = this.#links.get(path);
      if (target === undefined) return this.#entries.get(path);
      path = target;
    }
    return undefined;
  }

  blob(digest: Digest): SeenEntry | undefined {
    return this.#blobs.get(digest);
  }

  /** The digest of a layer's content when it isn't compressed; undefined where nobody has looked. */
  diffIdOf({ name, digest, packing }: SeenEntry): Digest | undefined {
    return packing === 'none' ? digest : this.#diffIds.get(name);
  }

  /** All that was kept, in the tarball's order, each digest once. */
  kept(): readonly KeptEntry[] {
    return [...this.#blobs.values()].filter(isKept);
  }

  /** The first names, to show. */
  names(): readonly string[] {
    return [...this.#entries.keys()].slice(0, 5);
  }

  add(entry: SeenEntry): void {
    this.#links.delete(entry.path);
    this.#entries.set(entry.path, entry);
    // The first is the one that was given out.
    if (!this.#blobs.has(entry.digest)) this.#blobs.set(entry.digest, entry);
    this.#jsonBytes += entry.bytes?.length ?? 0;
  }

  addLink(path: string, { kind, target }: TarLink): void {
    this.#links.set(path, pathOf(kind === 'hard' ? target : posix.join(posix.dirname(path), target)));
  }

  addDiffId(name: string, diffId: Digest): void {
    this.#diffIds.set(name, diffId);
  }

  /** Whether to keep an entry's content: it looks like JSON, and there is room. */
  keeps(size: number, head: Buffer): boolean {
    return looksLikeJson(head) && size <= limits.jsonBytes && this.#jsonBytes + size <= limits.jsonBytesInAll;
  }

  nextName(): string {
    this.#unnamed += 1;
    return `layer-${String(this.#unnamed)}.tar`;
  }
}

/**
 * Reads a plain tarball of images, of whatever maker: gives out what is large, each once and to be taken in turn, and keeps
 * the small entries that tell which images there are. Nothing else is held.
 * @param seen takes what was in it
 * @throws HandoverError `tarball-invalid` when it's cut or no tar, or when a blob isn't what its name says; what `chunks` throws
 */
export async function* readTarball(chunks: LentChunks, seen: SeenTarball): AsyncGenerator<PassingEntry> {
  for await (const { name, size, offset, isFile, link, content } of tarEntries(chunks)) {
    const path = pathOf(name);
    if (link !== undefined) seen.addLink(path, link);
    if (!isFile) continue;
    const told = digestIn(path);
    const { head, all } = await withHead(content, (bytes) => bytes.length >= tarBlock);
    const packing = layerPackingOf(head);
    if (seen.keeps(size, head)) {
      const bytes = await copiedBytes(all);
      const digest = requireTold(told, digestOf(bytes));
      seen.add({ path, name: blobName(digest), digest, size, offset, packing, bytes });
      continue;
    }
    const checksum = new Checksum();
    const passing = checksummed(all, checksum);
    const before = told === undefined ? undefined : seen.blob(told);
    const out = before?.name ?? (told === undefined ? seen.nextName() : blobName(told));
    // Other files are not passed on: one could be a config that another document names.
    if (before === undefined && packing !== undefined)
      yield { path, name: out, digest: told, size, offset, packing, chunks: passing };
    await drain(passing);
    seen.add({ path, name: out, digest: requireTold(told, checksum.found().digest), size, offset, packing });
  }
}

/**
 * Reads a plain tarball to its end, and checks each layer: by the digest in its name, else by the diff ID in the config, for
 * which a compressed one is unpacked.
 * @throws HandoverError as `readTarball`; what `chunks` throws
 */
export async function seeTarball(chunks: LentChunks): Promise<SeenTarball> {
  const seen = new SeenTarball();
  for await (const { path, name, digest, packing, chunks: passing } of readTarball(chunks, seen)) {
    if (digest !== undefined || (packing !== 'gzip' && packing !== 'zstd')) continue;
    const source = { failed: false };
    const watched = watchedChunks(streamableChunks(passing), () => (source.failed = true));
    const diffId = await contentDigest(decompress(watched, packing)).catch((error: unknown) => {
      throw source.failed ? error : undecodable(path, packing, error);
    });
    seen.addDiffId(name, diffId);
  }
  return seen;
}

async function contentDigest(chunks: LentChunks): Promise<Digest> {
  const checksum = new Checksum();
  await drain(checksummed(chunks, checksum));
  return checksum.found().digest;
}

function digestIn(path: string): Digest | undefined {
  return parseDigest(`sha256:${/^blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1] ?? ''}`);
}

// Some makers write `./manifest.json`; engines unpack the tar, and so take it for `manifest.json`.
function pathOf(name: string): string {
  return posix.join('/', name).slice(1);
}

function undecodable(path: string, packing: Packing, cause: unknown): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    `The layer ${path} in the tarball is damaged ${packing} data: ${messageOf(cause)}.`,
    'Make the tarball again. If it was copied or downloaded, compare its checksum with that of the original.',
    cause,
  );
}

function requireTold(told: Digest | undefined, digest: Digest): Digest {
  if (told !== undefined && told !== digest) throw damaged(blobName(told), told, digest);
  return digest;
}

/** What to say of an entry whose content isn't what the tarball says of it. */
export function damaged(name: string, expected: Digest, found: Digest): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    `${name} in the tarball is damaged: its content has the digest ${found}; ${expected} was expected.`,
    'Make the tarball again. If it was copied or downloaded, compare its checksum with that of the original.',
  );
}
