import { createReadStream } from 'node:fs';
import { open, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';

/** Number of bytes that are read from a file at a time. */
export const readBytes = 512 * 1024;

interface Piece {
  readonly path: string;
  readonly size: number;
}

interface Blob {
  pieces: readonly Piece[];
  contentType: string;
  /** Uploaded blocks that are not in a list yet. */
  readonly uncommitted: Map<string, Piece>;
  committed: boolean;
}

/** Block blobs on disk. A blob is a list of its blocks' files, so a commit copies nothing. */
export interface BlobStore {
  reserve(name: string): void;
  exists(name: string): boolean;
  /** Returns the size of a committed blob in bytes, or undefined. */
  size(name: string): number | undefined;
  contentType(name: string): string;
  newPiecePath(): string;
  putBlock(name: string, id: string, piece: Piece): void;
  putWhole(name: string, piece: Piece, contentType: string): void;
  /** Returns false if a block is unknown. */
  commit(name: string, ids: readonly string[], contentType: string): boolean;
  read(name: string, start: number, end: number): AsyncGenerator<Buffer>;
  remove(name: string): Promise<void>;
  /** Damages a blob. */
  flipByte(name: string, offset: number): Promise<void>;
  cut(name: string, size: number): Promise<void>;
}

export function blobStore(directory: string): BlobStore {
  const blobs = new Map<string, Blob>();
  let pieceCount = 0;
  const get = (name: string): Blob => {
    const blob = blobs.get(name);
    if (blob === undefined) throw new Error(`no blob ${name}`);
    return blob;
  };
  const size = (name: string): number | undefined => {
    const blob = blobs.get(name);
    return blob?.committed === true ? blob.pieces.reduce((total, piece) => total + piece.size, 0) : undefined;
  };
  return {
    reserve: (name) => void blobs.set(name, { pieces: [], contentType: '', uncommitted: new Map(), committed: false }),
    exists: (name) => blobs.has(name),
    size,
    contentType: (name) => get(name).contentType,
    newPiecePath: () => join(directory, `piece-${String((pieceCount += 1))}`),
    putBlock: (name, id, piece) => void get(name).uncommitted.set(id, piece),
    putWhole: (name, piece, contentType) =>
      void Object.assign(get(name), { pieces: [piece], contentType, committed: true }),
    commit: (name, ids, contentType) => {
      const blob = get(name);
      const pieces = ids.map((id) => blob.uncommitted.get(id));
      if (!pieces.every((piece) => piece !== undefined)) return false;
      Object.assign(blob, { pieces, contentType, committed: true });
      return true;
    },
    read: (name, start, end) => readPieces(get(name).pieces, start, end),
    remove: async (name) => {
      const { pieces, uncommitted } = get(name);
      blobs.delete(name);
      await Promise.all([...pieces, ...uncommitted.values()].map(({ path }) => rm(path, { force: true })));
    },
    flipByte: async (name, offset) => {
      await flipByte(get(name).pieces, offset);
    },
    cut: async (name, newSize) => {
      const blob = get(name);
      blob.pieces = await cutPieces(blob.pieces, newSize);
    },
  };
}

async function* readPieces(pieces: readonly Piece[], start: number, end: number): AsyncGenerator<Buffer> {
  let position = 0;
  for (const { path, size } of pieces) {
    const from = Math.max(0, start - position);
    const to = Math.min(size, end - position);
    position += size;
    if (from >= to) continue;
    const stream: AsyncIterable<Buffer> = createReadStream(path, {
      start: from,
      end: to - 1,
      highWaterMark: readBytes,
    });
    yield* stream;
  }
}

async function flipByte(pieces: readonly Piece[], offset: number): Promise<void> {
  let position = 0;
  for (const { path, size } of pieces) {
    if (offset < position + size) {
      const file = await open(path, 'r+');
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, offset - position);
      await file.write(Buffer.from([(byte[0] ?? 0) ^ 0xff]), 0, 1, offset - position);
      await file.close();
      return;
    }
    position += size;
  }
}

async function cutPieces(pieces: readonly Piece[], newSize: number): Promise<readonly Piece[]> {
  const kept: Piece[] = [];
  let left = newSize;
  for (const { path, size } of pieces) {
    if (left <= 0) break;
    if (left < size) await truncate(path, left);
    kept.push({ path, size: (await stat(path)).size });
    left -= size;
  }
  return kept;
}
