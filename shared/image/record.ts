import { corruptArtifact, HandoverError, invalidTarball, translated } from '../base/errors.ts';
import {
  isByteCount,
  isObject,
  type JsonObject,
  objectOf,
  objectsOf,
  parseJson,
  stringMapOf,
  stringOr,
  stringsOf,
} from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { quoteForeign } from '../base/text.ts';
import { type Digest, isDigest } from './digest.ts';
import type { BlobDescriptor, ImageConfig } from './manifest.ts';
import { formatPlatform, parsePlatform } from './platform.ts';
import {
  formatReference,
  parsePinnedReference,
  parseTaggedReference,
  type PinnedReference,
  type TaggedReference,
} from './reference.ts';

/** The record's file name within the artifact. */
export const recordName = 'image-handover.json';

/** The artifact's tar with the image's attestations: their blobs, and as `index.json` the index of the image and the attestations. */
export const attestationsName = 'image-attestations.tar';

const recordSchema = 1;

function wrongSchema(found: unknown): HandoverError {
  const newer = typeof found === 'number' && found > recordSchema;
  return new HandoverError(
    'artifact-corrupt',
    `The record ${recordName} has schema ${shown(found)}; this version reads schema ${String(recordSchema)}.`,
    newer
      ? 'The artifact was made by a newer export-image: use the same version of both actions.'
      : 'Use the same version of export-image and load-image.',
  );
}

/** @param why the reason, to follow a colon */
export function corrupt(why: string, cause?: unknown): HandoverError {
  return corruptArtifact(`The record ${recordName} in the artifact can't be used: ${why}.`, cause);
}

/** A layer in the tarball. */
export interface RecordLayer extends BlobDescriptor {
  /** The offset of the layer's bytes in the plain tarball; unknown for a tarball that export-image didn't write. */
  readonly offset?: number | undefined;
}

export type TarballCompression = 'none' | 'gzip' | 'zstd';

/** The job that made the artifact. */
export interface Producer {
  readonly repository: string;
  readonly runId: string;
  readonly runAttempt: number;
  readonly commit: string;
  /** Job id and position in its matrix: the same for every attempt of a job, and unique in the run. */
  readonly jobKey: string;
}

/** The position of some bytes in the uncompressed tarball. */
export interface BytePlace {
  readonly offset: number;
  readonly size: number;
}

/** An image, with the properties that it must have on every engine. */
export interface RecordedImage extends Pick<ImageConfig, 'platform' | 'diffIds' | 'labels'> {
  readonly references: readonly TaggedReference[];
  readonly configDigest: Digest;
  /** Digests of the image's manifest, then of the indexes that contain it. */
  readonly manifestDigests: readonly Digest[];
  readonly layers: readonly RecordLayer[];
  /** The position of its config; unknown in a compressed tarball. */
  readonly configAt?: BytePlace | undefined;
  /** The position of its manifest, if it has one. */
  readonly manifestAt?: BytePlace | undefined;
}

/** Returns all images of a record, with the main image first. */
export function imagesOf(record: HandoverRecord): readonly RecordedImage[] {
  return [record, ...(record.further ?? [])];
}

/** The times of an image's handover, in ms since the epoch by the exporting job's clock. */
export interface RecordTimes {
  /** The step began. */
  readonly began: number;
  /** The build of the image started, or the work that replaces it. */
  readonly started: number;
  /** The image was built, or read from its source. */
  readonly built: number;
  /** All of it was sent to the artifact service. */
  readonly ready: number;
}

/** Describes the handed-over images: `image-handover.json` in the artifact. Written by export, only read by load. */
export interface HandoverRecord extends RecordedImage {
  /** Additional images in the tarball. */
  readonly further?: readonly RecordedImage[] | undefined;
  readonly created?: string | undefined;
  /** The tarball's file name within the artifact. */
  readonly tarballName: string;
  readonly tarballSize: number;
  readonly tarballDigest: Digest;
  readonly tarballCompression: TarballCompression;
  readonly producer: Producer;
  /** The image's reference in a registry, if its build also pushed it. */
  readonly pushedReference?: PinnedReference | undefined;
  /** Digest of the index of the image and its attestations, if the artifact has any. */
  readonly indexDigest?: Digest | undefined;
  readonly times?: RecordTimes | undefined;
}

/** @throws HandoverError `tarball-invalid` if the record would exceed the limit for reading */
export function formatRecord(record: HandoverRecord): string {
  const { pushedReference, further, ...rest } = record;
  const text = {
    schema: recordSchema,
    ...formatImage(rest),
    further: further?.map(formatImage),
    pushedReference: pushedReference && formatReference(pushedReference),
  };
  const formatted = `${JSON.stringify(text, undefined, 2)}\n`;
  const bytes = Buffer.byteLength(formatted);
  if (bytes <= limits.recordBytes) return formatted;
  throw invalidTarball(
    `The labels of the images are too long to be handed over: the record of them would have ${String(bytes)} bytes, more than 8 MiB.`,
    'Shorten the labels, or hand over fewer images in one artifact.',
  );
}

function formatImage({ references, platform, ...rest }: RecordedImage): JsonObject {
  return { references: references.map(formatReference), platform: formatPlatform(platform), ...rest };
}

/**
 * Reads an untrusted record. Each size, digest and reference is checked; unknown fields are ignored.
 * @throws HandoverError `artifact-corrupt`
 */
export function parseRecord(text: string): HandoverRecord {
  if (Buffer.byteLength(text) > limits.recordBytes) throw corrupt('it is larger than 8 MiB');
  const value = parseJson(text);
  if (!isObject(value)) throw corrupt(`it is not a JSON object: "${quoteForeign(text, 80)}"`);
  if (value['schema'] !== recordSchema) throw wrongSchema(value['schema']);
  const record: HandoverRecord = {
    ...image(value),
    further: given(value, 'further', furtherImages),
    created: stringOr(value['created'], undefined),
    tarballName: fileName(value['tarballName']),
    tarballSize: byteCount(value, 'tarballSize'),
    tarballDigest: digest(value, 'tarballDigest'),
    tarballCompression: compression(value['tarballCompression']),
    producer: producer(value['producer']),
    indexDigest: given(value, 'indexDigest', digest),
    pushedReference: given(value, 'pushedReference', (from, name) =>
      parsed('its pushed reference', from[name], parsePinnedReference),
    ),
    times: times(value['times']),
  };
  requireInside(record);
  return record;
}

/** Reads an optional member. */
function given<T>(from: JsonObject, name: string, read: (from: JsonObject, name: string) => T): T | undefined {
  return from[name] === undefined ? undefined : read(from, name);
}

function furtherImages(from: JsonObject, name: string): readonly RecordedImage[] {
  const value = from[name];
  const items: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (items.length >= limits.images) throw corrupt(`it lists ${String(items.length)} further images`);
  // If an item were ignored, its image would be missing.
  if (!items.every(isObject)) throw corrupt('a further image in it is not a JSON object');
  return items.map(image);
}

function image(value: JsonObject): RecordedImage {
  return {
    references: references(value['references']),
    platform: parsed('its platform', value['platform'], parsePlatform),
    configDigest: digest(value, 'configDigest'),
    manifestDigests: digests(value, 'manifestDigests'),
    diffIds: digests(value, 'diffIds'),
    labels: stringMapOf(value['labels']),
    layers: layers(value),
    configAt: given(value, 'configAt', place),
    manifestAt: given(value, 'manifestAt', place),
  };
}

function place(from: JsonObject, name: string): BytePlace {
  const found = from[name];
  if (!isObject(found)) throw corrupt(`its ${name} is not a position in the tarball`);
  return { offset: byteCount(found, 'offset'), size: byteCount(found, 'size') };
}

function references(value: unknown): HandoverRecord['references'] {
  const texts = stringsOf(value);
  if (texts.length === 0) throw corrupt('it has no references');
  if (texts.length > limits.references) throw corrupt(`it lists ${String(texts.length)} references`);
  return texts.map((text) => parsed('a reference in it', text, parseTaggedReference));
}

function parsed<T>(what: string, value: unknown, parse: (text: string) => T): T {
  return translated(
    () => parse(stringOr(value, '')),
    (error) => corrupt(`${what} is malformed`, error),
  );
}

function layers(value: JsonObject): readonly RecordLayer[] {
  const items = objectsOf(value['layers']);
  if (items.length > limits.layers) throw corrupt(`it lists ${String(items.length)} layers`);
  return items.map((item) => ({
    digest: digest(item, 'digest'),
    size: byteCount(item, 'size'),
    mediaType: stringOr(item['mediaType'], ''),
    offset: given(item, 'offset', byteCount),
  }));
}

function requireInside(record: HandoverRecord): void {
  const isOutside = ({ offset, size }: Pick<RecordLayer, 'offset' | 'size'>): boolean =>
    offset !== undefined && offset + size > record.tarballSize;
  for (const { layers, configAt, manifestAt } of imagesOf(record)) {
    const outside = layers.find(isOutside);
    if (outside !== undefined) throw corrupt(`layer ${outside.digest} lies outside the tarball`);
    if ([configAt, manifestAt].some((place) => place !== undefined && isOutside(place)))
      throw corrupt('a config or manifest lies outside the tarball');
  }
}

function producer(value: unknown): Producer {
  const from = objectOf(value);
  return {
    repository: stringOr(from['repository'], ''),
    runId: stringOr(from['runId'], ''),
    runAttempt: isByteCount(from['runAttempt']) ? from['runAttempt'] : 0,
    commit: stringOr(from['commit'], ''),
    jobKey: stringOr(from['jobKey'], ''),
  };
}

// The times are only displayed, and no decision depends on them. So invalid times are omitted.
function times(value: unknown): RecordTimes | undefined {
  if (!isObject(value)) return undefined;
  const [began, started, built, ready] = ['began', 'started', 'built', 'ready'].map((name) => value[name]);
  if (!isByteCount(began) || !isByteCount(started) || !isByteCount(built) || !isByteCount(ready)) return undefined;
  return began <= started && started <= built && built <= ready ? { began, started, built, ready } : undefined;
}

function fileName(value: unknown): string {
  const name = stringOr(value, '');
  if (!/^[^/\\]+$/.test(name) || name === '..' || name === recordName)
    throw corrupt('its tarball name is not a file name');
  return name;
}

function compression(value: unknown): TarballCompression {
  if (value === 'none' || value === 'gzip' || value === 'zstd') return value;
  throw corrupt(`its compression "${shown(value)}" is unknown`);
}

// An object in JSON may have a member `toString`.
function shown(value: unknown): string {
  const text = value === undefined ? 'undefined' : JSON.stringify(value);
  return quoteForeign(stringOr(value, text));
}

function digest(from: JsonObject, name: string): Digest {
  const value = from[name];
  if (!isDigest(value)) throw corrupt(`its ${name} is not a digest`);
  return value;
}

function digests(from: JsonObject, name: string): readonly Digest[] {
  const value = stringsOf(from[name]);
  if (value.length > limits.layers || !value.every(isDigest)) throw corrupt(`its ${name} are not digests`);
  return value;
}

function byteCount(from: JsonObject, name: string): number {
  const value = from[name];
  if (!isByteCount(value)) throw corrupt(`its ${name} is not a byte count`);
  return value;
}
