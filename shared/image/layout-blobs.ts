import { createHash } from 'node:crypto';
import { open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeAll } from '../write-all.ts';
import { type Digest, hexOf } from './digest.ts';
import { compressLayer, type LayerCompression } from './layer-compression.ts';
import { layerMediaType } from './layer-format.ts';
import { blobPath } from './oci-layout.ts';
import type { ReplacedLayer } from './replaced-layer.ts';

/** The blobs of an OCI layout that is being written. Each is renamed into place when it is whole: others read it from then on (arriving-layers.ts). */
export class LayoutBlobs {
  readonly #layout: string;
  readonly #compression: LayerCompression;
  readonly #layers = new Map<Digest, Promise<ReplacedLayer | undefined>>();

  /** @param layout its folder, with `blobs/sha256` in it */
  constructor(layout: string, compression: LayerCompression) {
    this.#layout = layout;
    this.#compression = compression;
  }

  /**
   * Compresses a layer into the layout, once: whoever comes with it a second time waits until it is there, and has it
   * written only if that failed.
   * @returns undefined for a layer that lies in the layout as it is
   */
  layer(digest: Digest, tar: AsyncIterable<Buffer>): Promise<ReplacedLayer | undefined> {
    const write = (): Promise<ReplacedLayer | undefined> => this.#writeLayer(digest, tar);
    const layer = this.#layers.get(digest)?.catch(write) ?? write();
    this.#layers.set(digest, layer);
    return layer;
  }

  /** Writes a blob as it is. */
  async place(digest: Digest, content: Buffer | AsyncIterable<Buffer>): Promise<void> {
    await this.#renamed(digest, async (partial) => {
      await writeFile(partial, content);
      return digest;
    });
  }

  async #writeLayer(digest: Digest, tar: AsyncIterable<Buffer>): Promise<ReplacedLayer | undefined> {
    if (this.#compression.format === 'uncompressed') {
      await this.place(digest, tar);
      return undefined;
    }
    const hash = createHash('sha256');
    let size = 0;
    const compressed = await this.#renamed(digest, async (partial) => {
      await using file = await open(partial, 'wx');
      for await (const part of compressLayer(tar, this.#compression)) {
        hash.update(part);
        size += part.length;
        await writeAll(file, part);
      }
      return `sha256:${hash.digest('hex')}`;
    });
    return { digest: compressed, size, mediaType: layerMediaType(this.#compression.format) };
  }

  /** @param write writes the file, and returns the digest that it gets its name from */
  async #renamed(digest: Digest, write: (partial: string) => Promise<Digest>): Promise<Digest> {
    const partial = join(this.#layout, `partial-${hexOf(digest)}`);
    try {
      const written = await write(partial);
      await rename(partial, blobPath(this.#layout, written));
      return written;
    } catch (error) {
      await rm(partial, { force: true });
      throw error;
    }
  }
}
