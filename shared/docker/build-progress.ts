import { isObject, type JsonObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { quoteError, quoteForeign } from '../base/text.ts';

/** One instruction of the Dockerfile, as BuildKit ran it or found it in the cache. */
export interface BuildStep {
  readonly name: string;
  readonly cached: boolean;
}

interface Vertex {
  /** In the order of starting; 0 until then. */
  number: number;
  readonly name: string;
  hasInputs: boolean;
  cached: boolean;
  done: boolean;
  /** Empty for none. */
  error: string;
}

const keptLines = 20;
// An instruction can have 64 kB, and be in each message about it. In characters.
const longestStep = 300;
const longestFailure = 3000;

// What BuildKit calls the look into a cache that it may read (moby/buildkit solver/llbsolver/bridge.go). It goes on without one that it
// can't reach.
const cacheImport = /^importing cache manifest from (.+)$/;
// What it says when bytes that it was promised don't come, or are others (containerd content.Copy). A base image's layers may be those.
const missingBytes = /(?:failed to solve|failed to compute cache key): (?:failed to copy: |failed commit on ref ")/;
// What buildx does before the build: its drivers get to a builder (driver/*/driver.go), and bake reads its files.
const builderStart = /^\[internal\] (?:booting buildkit|waiting for connection)/;
const preparation = /^\[internal\] (?:booting buildkit|waiting for connection|load local bake definitions)/;
// What it says of a builder that no connection can be made to (build/build.go, builder/node.go).
const unreachable =
  /no valid drivers found|failed to list workers|listing workers|code = Unavailable|Unavailable: connection error/;

// What stands before the cause of a failed build.
const failurePrefix = /^ERROR: (?:failed to build: )?(?:failed to solve: )?/;

// `[build 2/4] RUN …`: an instruction. `FROM` only names a base, and `[internal] …` is BuildKit's own work.
const instruction = /^(\[(?:[^\]]+ )?\d+\/\d+\]) (?:LINK )?((?!FROM ).+)/s;

// What is copied comes from somewhere: without inputs it is the download of an ADD, under the instruction's name. BuildKit
// asks for it in each build, so it is never "cached"; where something new came, the copy behind it isn't either.
const copies = /^(?:ADD|COPY) /;

// What BuildKit calls its image exporter, and what it says of the exporter's pushes in all versions from 0.13 to 0.34
// (moby/buildkit exporter/containerimage/export.go). Since 0.28 the push is no longer part of the exporter's first run: it
// runs under no vertex in 0.28, and as a second run of the same vertex later.
const imageExporter = 'exporting to image';
const pushStatus = 'pushing ';
const pushError =
  /^ERROR: (?:failed to build: )?(?:failed to solve: )?(?:rpc error: code = \w+ desc = )?failed to push /;

/** Takes the lines of `buildx build --progress=rawjson` and tells them for people. */
export class BuildProgress {
  readonly #print: (line: string) => void;
  readonly #vertices = new Map<string, Vertex>();
  readonly #otherLines: string[] = [];
  #startedCount = 0;
  #failed: string | undefined;
  #pushing = false;

  /** @param print takes one line of readable progress, in the style of `--progress=plain` */
  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  line(text: string): void {
    const update = text.startsWith('{') ? parseJson(text) : undefined;
    if (!isObject(update)) {
      if (text.trim() === '') return;
      this.#print(text);
      if (this.#otherLines.push(text) > keptLines) this.#otherLines.shift();
      return;
    }
    for (const item of objectsOf(update['vertexes'])) this.#updateVertex(item);
    for (const item of objectsOf(update['statuses'])) this.#pushing ||= stringOr(item['id'], '').startsWith(pushStatus);
    for (const item of objectsOf(update['logs'])) this.#printLog(item);
    for (const item of objectsOf(update['warnings'])) this.#print(`WARN: ${decode(item['short'])}`);
  }

  /**
   * The instructions that were run or found in the cache, in the order they started. One instruction can be several
   * vertices (a download and its copy; a copy and its link): it was cached when all of its work was.
   */
  steps(): readonly BuildStep[] {
    const steps = new Map<string, BuildStep>();
    for (const vertex of [...this.#vertices.values()].sort((one, other) => one.number - other.number)) {
      const [, place, text = ''] = instruction.exec(vertex.name) ?? [];
      if (place === undefined || !vertex.done || (copies.test(text) && !vertex.hasInputs)) continue;
      const name = quoteForeign(`${place} ${text}`, longestStep);
      steps.set(name, { name, cached: vertex.cached && steps.get(name)?.cached !== false });
    }
    return [...steps.values()];
  }

  /** What went wrong, in BuildKit's words; the last lines that weren't progress when no step failed. */
  failure(): string {
    return quoteError(this.#lastError() ?? this.#failed ?? this.#otherLines.at(-1) ?? 'no message', longestFailure);
  }

  /** The same without the words that every failed build has. */
  cause(): string {
    return this.failure().replace(failurePrefix, '');
  }

  /** A sentence for each cache that couldn't be reached. */
  get unreadCaches(): readonly string[] {
    return this.#imports().flatMap(({ name, error }) =>
      error === '' ? [] : [`${cacheName(name)} was not read: ${quoteError(error)}.`],
    );
  }

  /** Whether the build ended because bytes of a layer didn't come, in a build that had found a cache. */
  get cacheBroke(): boolean {
    const found = this.#imports().some(({ done, error }) => done && error === '');
    return found && missingBytes.test(this.#lastError() ?? '');
  }

  /** Whether a step of the build was begun: then the builder was reached. */
  get began(): boolean {
    return [...this.#vertices.values()].some(({ name }) => !preparation.test(name));
  }

  /** Why the builder couldn't be reached, in buildx's words; undefined when it was. */
  get builderFailure(): string | undefined {
    if (this.began) return undefined;
    const failed = [...this.#vertices.values()].find(({ name, error }) => builderStart.test(name) && error !== '');
    if (failed !== undefined) return `${failed.name}: ${quoteError(failed.error)}`;
    return unreachable.test(this.failure()) ? this.cause() : undefined;
  }

  #imports(): readonly Vertex[] {
    return [...this.#vertices.values()].filter(({ name }) => cacheImport.test(name));
  }

  /** Whether a push has begun, in a build that pushes. */
  get pushing(): boolean {
    return this.#pushing;
  }

  /** Whether it was a push that ended the build: then each step of it was done before. */
  get pushFailed(): boolean {
    return pushError.test(this.#lastError() ?? '');
  }

  // buildx ends with the one error that the build has failed with. Vertices have others too: of what was cancelled then,
  // and of caches that can't be read.
  #lastError(): string | undefined {
    const at = this.#otherLines.findLastIndex((line) => line.startsWith('ERROR: '));
    if (at === -1) return undefined;
    // What a server has answered takes further lines, with rules between them.
    return this.#otherLines
      .slice(at)
      .filter((line) => !/^-+$/.test(line))
      .join(' ');
  }

  #updateVertex(update: JsonObject): void {
    const vertex = this.#vertexOf(update);
    if (vertex === undefined) return;
    if (vertex.number === 0 && typeof update['started'] === 'string') {
      vertex.number = this.#startedCount += 1;
      this.#print(`#${String(vertex.number)} ${vertex.name}`);
    }
    vertex.cached ||= update['cached'] === true;
    vertex.hasInputs ||= Array.isArray(update['inputs']) && update['inputs'].length > 0;
    const error = stringOr(update['error'], '');
    // A vertex can run again: its end is told once, and whatever error comes later.
    if (typeof update['completed'] !== 'string' || (vertex.done && error === '')) return;
    vertex.done = true;
    vertex.error ||= error;
    if (error !== '' && !error.includes('context canceled')) this.#failed ??= `${vertex.name}: ${error}`;
    this.#pushing ||= vertex.name === imageExporter;
    const end = error === '' ? (vertex.cached ? 'CACHED' : `DONE ${seconds(update)}`) : `ERROR: ${error}`;
    this.#print(`#${String(vertex.number)} ${end}`);
  }

  #printLog(update: JsonObject): void {
    const number = this.#vertices.get(stringOr(update['vertex'], ''))?.number ?? 0;
    for (const line of decode(update['data']).split('\n')) if (line !== '') this.#print(`#${String(number)} ${line}`);
  }

  #vertexOf(update: JsonObject): Vertex | undefined {
    const digest = stringOr(update['digest'], '');
    const name = stringOr(update['name'], '');
    if (digest === '' || name === '') return undefined;
    const vertex = this.#vertices.get(digest) ?? {
      number: 0,
      name,
      hasInputs: false,
      cached: false,
      done: false,
      error: '',
    };
    this.#vertices.set(digest, vertex);
    return vertex;
  }
}

// BuildKit adds the settings' hash to the type, such as `gha:5882378797973059818`; a registry's cache goes by its reference.
function cacheName(vertex: string): string {
  const name = cacheImport.exec(vertex)?.[1] ?? '';
  const type = /^([a-z0-9]+):\d{15,}$/.exec(name)?.[1];
  return type === undefined ? quoteForeign(name) : `type=${type}`;
}

function decode(base64: unknown): string {
  return Buffer.from(stringOr(base64, ''), 'base64').toString();
}

function seconds(update: JsonObject): string {
  const started = Date.parse(stringOr(update['started'], ''));
  const completed = Date.parse(stringOr(update['completed'], ''));
  return `${Math.max(0, (completed - started) / 1000).toFixed(1)}s`;
}
