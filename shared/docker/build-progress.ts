import { isObject, type JsonObject, objectsOf, parseJson, stringOr } from '../json.ts';

/** One instruction of the Dockerfile, as BuildKit ran it or found it in the cache. */
export interface BuildStep {
  readonly name: string;
  readonly cached: boolean;
}

interface Vertex {
  /** In the order of starting; 0 until then. */
  number: number;
  readonly name: string;
  cached: boolean;
  done: boolean;
}

const keptLines = 20;

// `[build 2/4] RUN …`: an instruction. `FROM` only names a base, and `[internal] …` is BuildKit's own work.
const instruction = /^\[(?:[^\]]+ )?\d+\/\d+\] (?!FROM )/;

// What BuildKit calls its image exporter and the exporter's pushes (moby/buildkit exporter/containerimage/export.go).
const imageExporter = 'exporting to image';
const pushStatus = 'pushing ';

/** Takes the lines of `buildx build --progress=rawjson` and tells them for people. */
export class BuildProgress {
  readonly #print: (line: string) => void;
  readonly #vertices = new Map<string, Vertex>();
  readonly #otherLines: string[] = [];
  #startedCount = 0;
  #failed: string | undefined;
  #pushing = false;
  #pushFailed = false;

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

  /** The instructions that were run or found in the cache, in the order they started. */
  steps(): readonly BuildStep[] {
    return [...this.#vertices.values()]
      .filter((vertex) => vertex.done && instruction.test(vertex.name))
      .sort((one, other) => one.number - other.number)
      .map(({ name, cached }) => ({ name, cached }));
  }

  /** What went wrong, in BuildKit's words; the last lines that weren't progress when no step failed. */
  failure(): string {
    const said = this.#otherLines.findLast((line) => line.startsWith('ERROR'));
    return said ?? this.#failed ?? this.#otherLines.at(-1) ?? 'no message';
  }

  /** Whether a push has begun. */
  get pushing(): boolean {
    return this.#pushing;
  }

  /** Whether the image's exporter failed, which pushes: then each step of the build was done before. */
  get pushFailed(): boolean {
    return this.#pushFailed;
  }

  #updateVertex(update: JsonObject): void {
    const vertex = this.#vertexOf(update);
    if (vertex === undefined) return;
    if (vertex.number === 0 && typeof update['started'] === 'string') {
      vertex.number = this.#startedCount += 1;
      this.#print(`#${String(vertex.number)} ${vertex.name}`);
    }
    vertex.cached ||= update['cached'] === true;
    if (vertex.done || typeof update['completed'] !== 'string') return;
    vertex.done = true;
    const error = stringOr(update['error'], '');
    if (error !== '' && !error.includes('context canceled')) {
      this.#pushFailed ||= vertex.name === imageExporter;
      this.#failed ??= `${vertex.name}: ${error}`;
    }
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
    const vertex = this.#vertices.get(digest) ?? { number: 0, name, cached: false, done: false };
    this.#vertices.set(digest, vertex);
    return vertex;
  }
}

function decode(base64: unknown): string {
  return Buffer.from(stringOr(base64, ''), 'base64').toString();
}

function seconds(update: JsonObject): string {
  const started = Date.parse(stringOr(update['started'], ''));
  const completed = Date.parse(stringOr(update['completed'], ''));
  return `${Math.max(0, (completed - started) / 1000).toFixed(1)}s`;
}
