import { createHash, type Hash } from 'node:crypto';
import { posix } from 'node:path';
import { copiedBytes } from '../copied-bytes.ts';
import { HandoverError } from '../errors.ts';
import { withHead } from '../stream-head.ts';
import { type Digest, digestOf, hexOf, parseDigest } from './digest.ts';
import { layerFormatOf, type LayerFormat } from './layer-format.ts';
import { maxJsonBytes } from './manifest.ts';
import { tarEntries, type TarLink } from './tar-entries.ts';
import { looksLikeTar, tarBlock } from './tar-header.ts';

// All configs and manifests of a tarball together.
const maxJsonBytesInAll = 8 * maxJsonBytes;
// Links may point to links; more than this many are a circle.
const maxLinks = 20;

/** An entry on its way: a layer, or something as large as one. */
export interface PassingEntry {
  /** Where it's to lie in a tarball of ours: `blobs/sha256/…` where its own name tells its digest. */
  readonly name: string;
  /** Known before it has passed only where its own name tells it; checked when it has. */
  readonly digest: Digest | undefined;
  /** Bytes. */
  readonly size: number;
  /** Each is valid until the next is asked for. */
  readonly chunks: AsyncIterable<Buffer>;
}

/** An entry that has passed or was kept. */
export interface SeenEntry {
  /** The name that it was given out under, or would have been. */
  readonly name: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly format: LayerFormat;
  /** The content, of an entry that looks like JSON and isn't too large. Such a one wasn't given out. */
  readonly bytes?: Buffer;
}

/** What was in a tarball, by the names that its own index uses. */
export class SeenTarball {
  readonly #entries = new Map<string, SeenEntry>();
  readonly #blobs = new Map<Digest, SeenEntry>();
  readonly #links = new Map<string, string>();
  #jsonBytes = 0;
  #passed = 0;

  /** What stands under a name in the tar, or where links under that name lead. */
  find(name: string): SeenEntry | undefined {
    let path = pathOf(name);
    for (let steps = 0; steps < maxLinks; steps += 1) {
      const target = this.#links.get(path);
      if (target === undefined) return this.#entries.get(path);
      path = target;
    }
    return undefined;
  }

  blob(digest: Digest): SeenEntry | undefined {
    return this.#blobs.get(digest);
  }

  /** The first names, to show. */
  names(): readonly string[] {
    return [...this.#entries.keys()].slice(0, 5);
  }

  add(path: string, entry: SeenEntry): void {
    this.#links.delete(path);
    this.#entries.set(path, entry);
    this.#blobs.set(entry.digest, entry);
    this.#jsonBytes += entry.bytes?.length ?? 0;
  }

  addLink(path: string, { kind, target }: TarLink): void {
    this.#links.set(path, pathOf(kind === 'hard' ? target : posix.join(posix.dirname(path), target)));
  }

  /** Whether to keep an entry's content: it looks like JSON, and there is room. */
  keeps(size: number, head: Buffer): boolean {
    const isJson = !looksLikeTar(head) && /^\s*[{[]/.test(head.toString('latin1', 0, tarBlock));
    return isJson && size <= maxJsonBytes && this.#jsonBytes + size <= maxJsonBytesInAll;
  }

  nextName(): string {
    this.#passed += 1;
    return `layer-${String(this.#passed)}.tar`;
  }
}

/**
 * Reads a plain tarball of images, of whatever maker: gives out what is large, each once and to be taken in turn, and keeps
 * the small entries that tell which images there are. Nothing else is held.
 * @param seen takes what was in it
 * @throws HandoverError `tarball-invalid` when it's cut or no tar, or when a blob isn't what its name says; what `chunks` throws
 */
export async function* readTarball(chunks: AsyncIterable<Buffer>, seen: SeenTarball): AsyncGenerator<PassingEntry> {
  for await (const { name, size, isFile, link, content } of tarEntries(chunks)) {
    const path = pathOf(name);
    if (link !== undefined) seen.addLink(path, link);
    if (!isFile) continue;
    const told = digestIn(path);
    const { head, all } = await withHead(content, (bytes) => bytes.length >= tarBlock);
    const format = layerFormatOf(head);
    if (seen.keeps(size, head)) {
      const bytes = await copiedBytes(all);
      const digest = requireTold(told, digestOf(bytes));
      seen.add(path, { name: blobName(digest), digest, size, format, bytes });
      continue;
    }
    const hash = createHash('sha256');
    const passing = hashed(all, hash);
    const isRepeated = told !== undefined && seen.blob(told) !== undefined;
    const out = told === undefined ? seen.nextName() : blobName(told);
    if (!isRepeated) yield { name: out, digest: told, size, chunks: passing };
    // What nobody has taken.
    await drained(passing);
    seen.add(path, { name: out, digest: requireTold(told, `sha256:${hash.digest('hex')}`), size, format });
  }
}

/** Takes what is left of some chunks. */
export async function drained(chunks: AsyncIterable<unknown>): Promise<void> {
  for await (const chunk of chunks) void chunk;
}

/** Where a blob lies in a tarball (OCI image-spec, image-layout.md). */
export function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function digestIn(path: string): Digest | undefined {
  return parseDigest(`sha256:${/^blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1] ?? ''}`);
}

// Some makers write `./manifest.json`; engines unpack the tar, and so take it for `manifest.json`.
function pathOf(name: string): string {
  return posix.join('/', name).slice(1);
}

async function* hashed(chunks: AsyncIterable<Buffer>, hash: Hash): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
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
