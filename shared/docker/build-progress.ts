import { isObject, type JsonObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { quoteError, quoteForeign } from '../base/text.ts';

/** One instruction of the Dockerfile, as BuildKit ran it or found it in the cache. */
export interface BuildStep {
  readonly name: string;
  readonly cached: boolean;
}

interface Vertex {
  /** In the order of the starts; 0 before it. */
  number: number;
  readonly name: string;
  hasInputs: boolean;
  cached: boolean;
  done: boolean;
  /** Empty for none. */
  error: string;
}

const keptLines = 20;
// In characters. An instruction can have 64 kB, and is in each message about it.
const longestStep = 300;
const longestFailure = 3000;

// The vertex that imports a cache (moby/buildkit solver/llbsolver/bridge.go). BuildKit continues without unreachable caches.
const cacheImport = /^importing cache manifest from (.+)$/;
// The error for missing or wrong bytes of a layer in a cache or a base image (containerd content.Copy).
const missingBytes = /(?:failed to solve|failed to compute cache key): (?:failed to copy: |failed commit on ref ")/;
// The vertices before the build: buildx's drivers connect to a builder (driver/*/driver.go), and bake reads its files.
const builderStart = /^\[internal\] (?:booting buildkit|waiting for connection)/;
const preparation = /^\[internal\] (?:booting buildkit|waiting for connection|load local bake definitions)/;
// The errors for an unreachable builder (build/build.go, builder/node.go).
const unreachable =
  /no valid drivers found|failed to list workers|listing workers|code = Unavailable|Unavailable: connection error/;

// The prefix of a failed build's cause.
const failurePrefix = /^ERROR: (?:failed to build: )?(?:failed to solve: )?/;

// `[build 2/4] RUN …`: an instruction. `FROM` only names a base, and `[internal] …` is internal work.
const instruction = /^(\[(?:[^\]]+ )?\d+\/\d+\]) (?:LINK )?((?!FROM ).+)/s;

// A copy without inputs is the download of an ADD, with the instruction's name. BuildKit requests it in each build, so it is never
// "cached". If the download has changed, the copy after it is not cached either.
const copies = /^(?:ADD|COPY) /;

// The vertex of the image exporter, and its errors of pushes in all versions from 0.13 to 0.34 (moby/buildkit
// exporter/containerimage/export.go). The push is not part of the exporter's first run since 0.28. It has no vertex in 0.28, and is a
// second run of the same vertex later.
const imageExporter = 'exporting to image';
const pushStatus = 'pushing ';
const pushError =
  /^ERROR: (?:failed to build: )?(?:failed to solve: )?(?:rpc error: code = \w+ desc = )?failed to push /;

/** Reads the lines of `buildx build --progress=rawjson`, and prints readable progress. */
export class BuildProgress {
  readonly #print: (line: string) => void;
  readonly #vertices = new Map<string, Vertex>();
  readonly #otherLines: string[] = [];
  #startedCount = 0;
  #failed: string | undefined;
  /** Whether a push has started, in a build that pushes. */
  pushing = false;

  /** @param print called with each line, in the style of `--progress=plain` */
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
    for (const item of objectsOf(update['statuses'])) this.pushing ||= stringOr(item['id'], '').startsWith(pushStatus);
    for (const item of objectsOf(update['logs'])) this.#printLog(item);
    for (const item of objectsOf(update['warnings'])) this.#print(`WARN: ${decode(item['short'])}`);
  }

  /**
   * Returns the instructions in the order of their starts. An instruction can have several vertices (a download and its copy, a copy and
   * its link). It was cached if all of them were.
   */
  steps(): readonly BuildStep[] {
    const steps = new Map<string, BuildStep>();
    for (const vertex of [...this.#vertices.values()].sort((one, other) => one.number - other.number)) {
      const [, place, text = ''] = instruction.exec(vertex.name) ?? [];
      if (place === undefined || !vertex.done || (copies.test(text) && !vertex.hasInputs)) continue;
      const name = quoteForeign(`${place} ${text}`, longestStep);
      // A cache can lack a layer that its index lists. BuildKit reports that after the hit, and runs the step.
      const cached = vertex.cached && vertex.error === '';
      steps.set(name, { name, cached: cached && steps.get(name)?.cached !== false });
    }
    return [...steps.values()];
  }

  /** Returns BuildKit's error, or the last line that was not progress. */
  failure(): string {
    return quoteError(this.#lastError() ?? this.#failed ?? this.#otherLines.at(-1) ?? 'no message', longestFailure);
  }

  /** The same without the prefix of every failed build. */
  cause(): string {
    return this.failure().replace(failurePrefix, '');
  }

  /** A sentence for each unreachable cache. */
  get unreadCaches(): readonly string[] {
    return this.#imports().flatMap(({ name, error }) =>
      error === '' ? [] : [`${cacheName(name)} was not read: ${quoteError(error)}.`],
    );
  }

  /** Whether bytes of a layer were missing in a build that had found a cache. */
  get cacheBroke(): boolean {
    const found = this.#imports().some(({ done, error }) => done && error === '');
    return found && missingBytes.test(this.#lastError() ?? '');
  }

  /** Whether a step of the build has started, so the builder was reached. */
  get began(): boolean {
    return [...this.#vertices.values()].some(({ name }) => !preparation.test(name));
  }

  /** buildx's error for an unreachable builder; undefined if it was reached. */
  get builderFailure(): string | undefined {
    if (this.began) return undefined;
    const failed = [...this.#vertices.values()].find(({ name, error }) => builderStart.test(name) && error !== '');
    if (failed !== undefined) return `${failed.name}: ${quoteError(failed.error)}`;
    return unreachable.test(this.failure()) ? this.cause() : undefined;
  }

  #imports(): readonly Vertex[] {
    return [...this.#vertices.values()].filter(({ name }) => cacheImport.test(name));
  }

  /** Whether a push made the build fail, after all of its steps. */
  get pushFailed(): boolean {
    return pushError.test(this.#lastError() ?? '');
  }

  // buildx prints the error of the build last. Vertices also have errors of cancelled work and of unreadable caches.
  #lastError(): string | undefined {
    const at = this.#otherLines.findLastIndex((line) => line.startsWith('ERROR: '));
    if (at === -1) return undefined;
    // A server's answer has more lines, with rules between them.
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
    // A vertex can run again. Its first end is printed, and every later error.
    if (typeof update['completed'] !== 'string' || (vertex.done && error === '')) return;
    vertex.done = true;
    vertex.error ||= error;
    if (error !== '' && !error.includes('context canceled')) this.#failed ??= `${vertex.name}: ${error}`;
    this.pushing ||= vertex.name === imageExporter;
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

// BuildKit adds the settings' hash to the type, such as `gha:5882378797973059818`. A registry's cache has its reference as its name.
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
