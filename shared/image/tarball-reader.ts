import { once } from 'node:events';
import { extract, type Header } from 'tar-stream';
import { asError, HandoverError, messageOf } from '../errors.ts';
import { type Digest, digestOf, isDigest } from './digest.ts';
import {
  type ArchiveImage,
  type ImageConfig,
  isIndex,
  parseArchiveManifest,
  parseConfig,
  parseIndex,
  parseManifest,
} from './manifest.ts';
import { formatReference, parseReference, type Reference } from './reference.ts';

/** A layer as it stands in a tarball. `digest` is unknown in the format of Docker 24 and older. */
export interface TarballLayer {
  readonly name: string;
  readonly digest?: Digest;
  readonly size: number;
}

/** What a tarball of `docker save` says of one image in it. */
export interface TarballImage {
  readonly references: readonly Reference[];
  readonly configDigest: Digest;
  readonly config: ImageConfig;
  /** Digests of the image's manifests and indexes; empty in the format of Docker 24 and older. */
  readonly manifestDigests: readonly Digest[];
  readonly layers: readonly TarballLayer[];
}

// A config or a manifest is some kilobytes; a layer is never held.
const maxJsonBytes = 4 * 1024 * 1024;
const maxJsonBytesInAll = 32 * 1024 * 1024;

/** Takes a plain tarball's bytes as they pass by, and tells at the end what was in it. Memory stays flat. */
export interface TarballInspector {
  /** @throws HandoverError `tarball-invalid` */
  write(chunk: Buffer): Promise<void>;
  /** @throws HandoverError `tarball-invalid` when the tar is cut or isn't a docker-loadable tarball */
  end(): Promise<readonly TarballImage[]>;
}

export function inspectTarball(): TarballInspector {
  const parser = extract();
  const seen = new SeenEntries();
  const state: { failure: Error | undefined } = { failure: undefined };
  const fail = (error: unknown): void => {
    state.failure ??= asError(error);
  };
  parser.on('error', fail);
  parser.on('entry', (header: Header, stream, next) => {
    const keep = seen.begin(header.name, header.size);
    const parts: Buffer[] = [];
    stream.on('data', (part: unknown) => {
      if (keep && Buffer.isBuffer(part) && (parts.length > 0 || startsJson(part))) parts.push(part);
    });
    stream.on('end', () => {
      seen.end(header.name, parts);
      next();
    });
    stream.on('error', fail);
  });
  return {
    write: async (chunk) => {
      if (state.failure === undefined && !parser.write(chunk)) await drained(parser);
      if (state.failure !== undefined) throw cut(state.failure);
    },
    end: async () => {
      if (state.failure === undefined) {
        const finished = once(parser, 'close');
        parser.end(undefined);
        await finished.catch(fail);
      }
      if (state.failure !== undefined) throw cut(state.failure);
      return imagesIn(seen.sizes, seen.json);
    },
  };
}

/** Names and sizes of the entries that passed, and the content of the small ones that look like JSON. */
class SeenEntries {
  readonly sizes = new Map<string, number>();
  readonly json = new Map<string, Buffer>();
  #jsonBytes = 0;

  /** Whether the entry's content is worth keeping. */
  begin(name: string, size: number): boolean {
    this.sizes.set(name, size);
    return size <= maxJsonBytes && this.#jsonBytes + size <= maxJsonBytesInAll;
  }

  end(name: string, parts: readonly Buffer[]): void {
    if (parts.length === 0) return;
    const content = Buffer.concat(parts);
    this.json.set(name, content);
    this.#jsonBytes += content.length;
  }
}

function startsJson(part: Buffer): boolean {
  return part[0] === 0x7b || part[0] === 0x5b;
}

async function drained(parser: ReturnType<typeof extract>): Promise<void> {
  await Promise.race([once(parser, 'drain'), once(parser, 'close')]).catch(() => undefined);
}

function cut(error: unknown): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    `The tarball is not a whole tar archive: ${messageOf(error)}.`,
    'Make it again with docker save; if it came from an artifact, it was damaged before it was uploaded.',
    error,
  );
}

function imagesIn(sizes: ReadonlyMap<string, number>, json: ReadonlyMap<string, Buffer>): readonly TarballImage[] {
  const text = json.get('manifest.json')?.toString();
  if (text === undefined) {
    const seen = [...sizes.keys()].slice(0, 5).join(', ');
    throw new HandoverError(
      'tarball-invalid',
      `The tarball has no manifest.json at its top; it holds: ${seen || 'nothing'}.`,
      'Make it with docker save. A tar of docker buildx --output type=oci or of docker export cannot be loaded.',
    );
  }
  return parseArchiveManifest(text, 'manifest.json').map((image) => tarballImage(image, sizes, json));
}

function tarballImage(
  image: ArchiveImage,
  sizes: ReadonlyMap<string, number>,
  json: ReadonlyMap<string, Buffer>,
): TarballImage {
  const configBytes = json.get(image.config);
  const missing = [image.config, ...image.layers].find((name) => !sizes.has(name));
  if (missing !== undefined || configBytes === undefined) {
    throw new HandoverError(
      'tarball-invalid',
      `The tarball's manifest.json names ${missing ?? image.config}, which is not in the tarball.`,
      'The tarball is cut or was edited: make it again with docker save.',
    );
  }
  const configDigest = digestOf(configBytes);
  return {
    references: image.repoTags.map(parseReference),
    configDigest,
    config: parseConfig(configBytes.toString(), image.config),
    manifestDigests: manifestDigestsOf(configDigest, json),
    layers: image.layers.map((name) => tarballLayer(name, sizes.get(name) ?? 0)),
  };
}

function tarballLayer(name: string, size: number): TarballLayer {
  const digest = `sha256:${name.split('/').pop() ?? ''}`;
  return name.startsWith('blobs/sha256/') && isDigest(digest) ? { name, digest, size } : { name, size };
}

// The digests an engine with the containerd store may take as the image's ID: of the manifest, and of indexes around it.
function manifestDigestsOf(configDigest: Digest, json: ReadonlyMap<string, Buffer>): readonly Digest[] {
  const blob = (digest: Digest): string | undefined => json.get(`blobs/sha256/${digest.slice(7)}`)?.toString();
  const visit = (indexText: string, where: string, depth: number): readonly Digest[] =>
    parseIndex(indexText, where).flatMap((descriptor) => {
      const text = blob(descriptor.digest);
      if (text === undefined) return [];
      if (isIndex(descriptor)) {
        const inside = depth > 3 ? [] : visit(text, `index ${descriptor.digest}`, depth + 1);
        return inside.length === 0 ? [] : [descriptor.digest, ...inside];
      }
      const manifest = parseManifest(text, `manifest ${descriptor.digest}`);
      return manifest.config.digest === configDigest ? [descriptor.digest] : [];
    });
  const indexText = json.get('index.json')?.toString();
  return indexText === undefined ? [] : [...new Set(visit(indexText, 'index.json', 0))];
}

/**
 * The image that is meant: the one under the reference asked for, else the only one there is.
 * @throws HandoverError `image-not-found` listing what the tarball holds
 */
export function chooseImage(images: readonly TarballImage[], wanted: Reference | undefined): TarballImage {
  const name = wanted === undefined ? undefined : formatReference(wanted);
  const named = images.find((image) => image.references.some((reference) => formatReference(reference) === name));
  const only = images.length === 1 ? images[0] : undefined;
  const chosen = named ?? only;
  if (chosen !== undefined) return chosen;
  const there = images.map((image) => image.references.map(formatReference).join(', ') || image.configDigest);
  throw new HandoverError(
    'image-not-found',
    `The tarball holds ${String(images.length)} images (${there.join('; ')}), and ${name ?? 'no reference'} was asked for.`,
    'Set the input `image` to one of them.',
  );
}
