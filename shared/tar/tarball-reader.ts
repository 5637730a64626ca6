import { posix } from 'node:path';
import { limits } from '../base/limits.ts';
import { type HandoverError, invalidTarball, messageOf } from '../base/errors.ts';
import { copiedBytes, type LentChunks, streamableChunks, watchedChunks, withHead } from '../bytes/chunks.ts';
import { Checksum, checksummed, drain } from '../bytes/verified.ts';
import { blobDigest, blobName, type Digest, digestOf } from '../image/digest.ts';
import { decompress, layerPackingOf, type Packing } from './compression.ts';
import { tarEntries, type TarLink } from './entries.ts';
import { looksLikeJson, tarBlock } from './header.ts';

/** An entry that is being read: a layer, or another entry of that size. */
interface PassingEntry {
  /** Its name in the tarball. */
  readonly path: string;
  /** Its name in a rewritten tarball: `blobs/sha256/…` if its own name contains its digest, else a new name. */
  readonly name: string;
  /** The digest in its own name, if any; checked at the end of the entry. */
  readonly digest: Digest | undefined;
  /** Bytes. */
  readonly size: number;
  /** The offset of its content in the tarball, in bytes. A tar may have two entries with the same name. */
  readonly offset: number;
  readonly packing: Packing;
  readonly chunks: LentChunks;
}

/** An entry that has been read. */
export interface SeenEntry extends Pick<PassingEntry, 'path' | 'name' | 'size' | 'offset'> {
  readonly digest: Digest;
  /** Undefined when it can't be a layer. */
  readonly packing: Packing | undefined;
  /** The content of an entry that looks like JSON and isn't too large. Such an entry is not yielded. */
  readonly bytes?: Buffer;
}

/** The entries of a tarball, by name. */
export class SeenTarball {
  readonly #entries = new Map<string, SeenEntry>();
  readonly #blobs = new Map<Digest, SeenEntry>();
  readonly #links = new Map<string, string>();
  readonly #diffIds = new Map<string, Digest>();
  #jsonBytes = 0;

  /** Returns the entry with a name, following links. */
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

  /** Returns the digest of a layer's uncompressed content, if it is known. */
  diffIdOf({ name, digest, packing }: SeenEntry): Digest | undefined {
    return packing === 'none' ? digest : this.#diffIds.get(name);
  }

  /** Returns the entries in the tarball's order, each digest once. */
  blobs(): readonly SeenEntry[] {
    return [...this.#blobs.values()];
  }

  /** Returns the first names, for messages. */
  names(): readonly string[] {
    return [...this.#entries.keys()].slice(0, 5);
  }

  add(entry: SeenEntry): void {
    this.#links.delete(entry.path);
    this.#entries.set(entry.path, entry);
    // The first one was passed on.
    if (!this.#blobs.has(entry.digest)) this.#blobs.set(entry.digest, entry);
    this.#jsonBytes += entry.bytes?.length ?? 0;
  }

  addLink(path: string, { kind, target }: TarLink): void {
    this.#links.set(path, pathOf(kind === 'hard' ? target : posix.join(posix.dirname(path), target)));
  }

  addDiffId(name: string, diffId: Digest): void {
    this.#diffIds.set(name, diffId);
  }

  /** Returns whether to keep an entry's content: it looks like JSON and is within the limits. */
  keeps(size: number, head: Buffer): boolean {
    return looksLikeJson(head) && size <= limits.jsonBytes && this.#jsonBytes + size <= limits.jsonBytesInAll;
  }
}

/**
 * Reads a plain tarball of images, made by any tool. Yields the large entries, each once and in order, and keeps the small ones, which
 * describe the images. Keeps nothing else in memory.
 * @param seen receives the entries
 * @throws HandoverError `tarball-invalid` when it is truncated or not a tar, or when a blob's digest differs from its name; errors of `chunks`
 */
export async function* readTarball(chunks: LentChunks, seen: SeenTarball): AsyncGenerator<PassingEntry> {
  let unnamed = 0;
  for await (const { name, size, offset, isFile, link, content } of tarEntries(chunks)) {
    const path = pathOf(name);
    if (link !== undefined) seen.addLink(path, link);
    if (!isFile) continue;
    const named = blobDigest(path);
    const { head, all } = await withHead(content, tarBlock);
    const packing = layerPackingOf(head);
    if (seen.keeps(size, head)) {
      const bytes = await copiedBytes(all);
      const digest = requireNamed(named, digestOf(bytes));
      seen.add({ path, name: blobName(digest), digest, size, offset, packing, bytes });
      continue;
    }
    const checksum = new Checksum();
    const passing = checksummed(all, checksum);
    const before = named === undefined ? undefined : seen.blob(named);
    if (named === undefined) unnamed += 1;
    const out = before?.name ?? (named === undefined ? `layer-${String(unnamed)}.tar` : blobName(named));
    // Other files are not yielded, because one could be a config that another document refers to.
    if (before === undefined && packing !== undefined)
      yield { path, name: out, digest: named, size, offset, packing, chunks: passing };
    await drain(passing);
    seen.add({ path, name: out, digest: requireNamed(named, checksum.found().digest), size, offset, packing });
  }
}

/**
 * Reads a plain tarball to its end, and checks each layer: by the digest in its name, or else by the diff ID in the config, after
 * decompressing it.
 * @throws HandoverError like `readTarball`; errors of `chunks`
 */
export async function seeTarball(chunks: LentChunks): Promise<SeenTarball> {
  const seen = new SeenTarball();
  for await (const { path, name, digest, packing, chunks: passing } of readTarball(chunks, seen)) {
    if (digest !== undefined || (packing !== 'gzip' && packing !== 'zstd')) continue;
    const source = { failed: false };
    const watched = watchedChunks(streamableChunks(passing), () => (source.failed = true));
    const checksum = new Checksum();
    await drain(checksummed(decompress(watched, packing), checksum)).catch((error: unknown) => {
      throw source.failed ? error : undecodable(path, packing, error);
    });
    seen.addDiffId(name, checksum.found().digest);
  }
  return seen;
}

// Some tools write `./manifest.json`. Engines unpack the tar, so for them it is the same file as `manifest.json`.
function pathOf(name: string): string {
  return posix.join('/', name).slice(1);
}

function undecodable(path: string, packing: Packing, cause: unknown): HandoverError {
  return invalidTarball(
    `The layer ${path} in the tarball is damaged ${packing} data: ${messageOf(cause)}.`,
    'Make the tarball again. If it was copied or downloaded, compare its checksum with that of the original.',
    cause,
  );
}

function requireNamed(named: Digest | undefined, digest: Digest): Digest {
  if (named !== undefined && named !== digest) throw damaged(blobName(named), named, digest);
  return digest;
}

/** Returns the error for an entry whose content has a different digest than the tarball's documents state. */
export function damaged(name: string, expected: Digest, found: Digest): HandoverError {
  return invalidTarball(
    `${name} in the tarball is damaged: its content has the digest ${found}; ${expected} was expected.`,
    'Make the tarball again. If it was copied or downloaded, compare its checksum with that of the original.',
  );
}
