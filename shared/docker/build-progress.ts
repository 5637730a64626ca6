import { isObject, type JsonObject, objectsOf, parseJson, stringOr } from '../json.ts';

/** One instruction of the Dockerfile, as BuildKit ran it or found it in the cache. */
export interface BuildStep {
  readonly name: string;
  readonly cached: boolean;
}

/** Takes the lines of `buildx build --progress=rawjson` and tells them for people. */
export interface BuildProgress {
  line(text: string): void;
  steps(): readonly BuildStep[];
  /** What went wrong, in BuildKit's words; the last lines that weren't progress when no step failed. */
  failure(): string;
}

interface Vertex {
  readonly number: number;
  readonly name: string;
  cached: boolean;
  started: boolean;
  done: boolean;
}

// `[build 2/4] RUN …`: an instruction. `FROM` only names a base, and `[internal] …` is BuildKit's own work.
const instruction = /^\[(?:[^\]]+ )?\d+\/\d+\] (?!FROM )/;

/** @param print takes one line of readable progress, in the style of `--progress=plain` */
export function buildProgress(print: (line: string) => void): BuildProgress {
  const vertices = new Map<string, Vertex>();
  const other: string[] = [];
  let failed: string | undefined;

  const vertexUpdate = (update: JsonObject): void => {
    const vertex = vertexOf(update, vertices);
    if (vertex === undefined) return;
    const prefix = `#${String(vertex.number)}`;
    if (!vertex.started && typeof update['started'] === 'string') {
      vertex.started = true;
      print(`${prefix} ${vertex.name}`);
    }
    vertex.cached ||= update['cached'] === true;
    const error = stringOr(update['error'], '');
    if (error !== '' && !error.includes('context canceled')) failed ??= `${vertex.name}: ${error}`;
    if (vertex.done || typeof update['completed'] !== 'string') return;
    vertex.done = true;
    if (error !== '') print(`${prefix} ERROR: ${error}`);
    else print(vertex.cached ? `${prefix} CACHED` : `${prefix} DONE ${seconds(update)}`);
  };

  const logUpdate = (update: JsonObject): void => {
    const vertex = vertices.get(stringOr(update['vertex'], ''));
    const text = Buffer.from(stringOr(update['data'], ''), 'base64').toString();
    for (const line of text.split('\n')) if (line !== '') print(`#${String(vertex?.number ?? 0)} ${line}`);
  };

  const warningUpdate = (update: JsonObject): void => {
    const text = Buffer.from(stringOr(update['short'], ''), 'base64').toString();
    if (text !== '') print(`WARN: ${text}`);
  };

  return {
    line: (text) => {
      const update = text.startsWith('{') ? parseJson(text) : undefined;
      if (!isObject(update)) {
        if (text.trim() !== '') print(text);
        if (text.trim() !== '' && other.push(text) > 20) other.shift();
        return;
      }
      objectsOf(update['vertexes']).forEach(vertexUpdate);
      objectsOf(update['logs']).forEach(logUpdate);
      objectsOf(update['warnings']).forEach(warningUpdate);
    },
    steps: () =>
      [...vertices.values()]
        .filter((vertex) => vertex.done && instruction.test(vertex.name))
        .map(({ name, cached }) => ({ name, cached })),
    failure: () => other.findLast((line) => line.startsWith('ERROR')) ?? failed ?? other.at(-1) ?? 'no message',
  };
}

function vertexOf(update: JsonObject, vertices: Map<string, Vertex>): Vertex | undefined {
  const digest = stringOr(update['digest'], '');
  const name = stringOr(update['name'], '');
  if (digest === '' || name === '') return undefined;
  const known = vertices.get(digest);
  if (known !== undefined) return known;
  const vertex = { number: vertices.size + 1, name, cached: false, started: false, done: false };
  vertices.set(digest, vertex);
  return vertex;
}

function seconds(update: JsonObject): string {
  const started = Date.parse(stringOr(update['started'], ''));
  const completed = Date.parse(stringOr(update['completed'], ''));
  return `${Math.max(0, (completed - started) / 1000).toFixed(1)}s`;
}
