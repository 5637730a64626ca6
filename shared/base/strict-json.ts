import { limits } from './limits.ts';
import { quoteForeign } from './text.ts';

// The one reader of JSON that names an image: configs, manifests, indexes, a Docker archive's manifest.json. Engines read these
// with Go's `encoding/json`, which means something else than `JSON.parse` by some texts: it matches the names of members without
// regard to case, takes the last of two, turns what is no UTF-8 into U+FFFD, and leaves a member out that is null. Whoever writes
// such a text shows one image to this step and another to the engine. So what could be read in two ways isn't read at all: each
// text that is taken here means to Go what it means here (__tests__/unit/strict-json.test.ts asks Go).

/** What is known of a value: which members Go's structs have, and of which type. What isn't known may be anything. */
export type Shape = 'any' | 'string' | 'integer' | 'boolean' | ObjectShape | ListShape | MapShape;

/** A struct of Go's: its members have names. */
export interface ObjectShape {
  readonly members: Readonly<Record<string, Shape>>;
}

export interface ListShape {
  readonly items: Shape;
}

/** A map of Go's, such as labels: the names of its members are data, and `a` and `A` are two. */
export interface MapShape {
  readonly values: Shape;
}

/** A value, or why it isn't read: the rest of a sentence that begins with the document. */
export type StrictJson = { readonly value: unknown } | { readonly why: string };

/**
 * Reads a document of this shape, of at most `limits.jsonBytes`. A member that is null is kept as null, which means to Go that it
 * isn't there.
 */
export function readStrictJson(bytes: Uint8Array, shape: Shape): StrictJson {
  try {
    const text = textOf(bytes);
    requireGrammar(text);
    return { value: new Reader(text).document(shape) };
  } catch (error) {
    if (error instanceof Refusal) return { why: error.message };
    throw error;
  }
}

class Refusal extends Error {}

function textOf(bytes: Uint8Array): string {
  if (bytes.length > limits.jsonBytes) throw new Refusal(`has more than ${String(limits.jsonBytes)} bytes`);
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    if (text.startsWith('\ufeff')) throw new Refusal('begins with a byte-order mark');
    return text;
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal('is not UTF-8');
  }
}

// Go's grammar and JavaScript's are one (RFC 8259): what stands in two ways in a text is not in its grammar.
function requireGrammar(text: string): void {
  try {
    JSON.parse(text);
  } catch {
    throw new Refusal('is not one JSON value');
  }
}

/**
 * The name of a member such that names which are one to Go are one here: it compares by Unicode's simple folding (encoding/json,
 * fold.go), of which this is coarser in a few letters. `ſ` is s, `K` (the sign for kelvin) is k.
 */
export function foldedName(name: string): string {
  return Array.from(name, (letter) => letter.toLowerCase().toUpperCase().toLowerCase()).join('');
}

type Path = readonly string[];

/** Goes through a text whose grammar is right. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(shape: Shape): unknown {
    return this.#value(shape, []);
  }

  #value(shape: Shape, path: Path): unknown {
    if (path.length > limits.jsonDepth) throw new Refusal(`is nested deeper than ${String(limits.jsonDepth)} levels`);
    switch (this.#next()) {
      case '{':
        return this.#object(shape, path);
      case '[':
        return this.#list(shape, path);
      case '"':
        requireType(shape === 'any' || shape === 'string', shape, path);
        return this.#string(path);
      default:
        return this.#word(shape, path);
    }
  }

  #object(shape: Shape, path: Path): unknown {
    const isMap = typeof shape === 'object' && 'values' in shape;
    const known = typeof shape === 'object' && 'members' in shape ? shape.members : {};
    requireType(shape === 'any' || isMap || (typeof shape === 'object' && 'members' in shape), shape, path);
    const names = new Map<string, string>();
    const spelled = new Map(Object.keys(known).map((name) => [foldedName(name), name]));
    const members = this.#items('}', (): readonly [string, unknown] => {
      const name = this.#string(path);
      const key = isMap ? name : foldedName(name);
      const twin = names.get(key);
      if (twin !== undefined)
        throw new Refusal(`has ${said(twin)} and ${said(name)} ${at(path)}, which is one name to an engine`);
      if ((spelled.get(key) ?? name) !== name)
        throw new Refusal(`has ${said(name)} ${at(path)}, which is ${said(spelled.get(key) ?? '')} to an engine`);
      if (name === '__proto__') throw new Refusal(`has ${said(name)} ${at(path)}`);
      names.set(key, name);
      this.#next();
      this.#at += 1;
      const own = isMap ? shape.values : Object.hasOwn(known, name) ? (known[name] ?? 'any') : 'any';
      const value = this.#value(own, [...path, name]);
      // Go makes an empty text of it.
      if (isMap && own === 'string') requireType(value !== null, own, [...path, name]);
      return [name, value];
    });
    return Object.fromEntries(members);
  }

  #list(shape: Shape, path: Path): unknown {
    const isList = typeof shape === 'object' && 'items' in shape;
    requireType(shape === 'any' || isList, shape, path);
    const own = isList ? shape.items : 'any';
    let position = 0;
    return this.#items(']', () => {
      const inside = [...path, String(position)];
      position += 1;
      const value = this.#value(own, inside);
      // Go makes an item of it, with nothing in it.
      requireType(value !== null || own === 'any', own, inside);
      return value;
    });
  }

  /** What stands between two brackets, up to `end`. */
  #items<T>(end: string, item: () => T): readonly T[] {
    const items: T[] = [];
    this.#at += 1;
    while (this.#next() !== end) {
      if (this.#next() === ',') this.#at += 1;
      this.#next();
      items.push(item());
    }
    this.#at += 1;
    return items;
  }

  #string(path: Path): string {
    const start = this.#at;
    do this.#at = this.#text.indexOf('"', this.#at + 1);
    while (this.#isEscaped());
    this.#at += 1;
    const text = String(JSON.parse(this.#text.slice(start, this.#at)));
    if (text.includes('\0')) throw new Refusal(`has a NUL ${at(path)}`);
    if (!text.isWellFormed()) throw new Refusal(`has half a character ${at(path)}`);
    return text;
  }

  #isEscaped(): boolean {
    let before = this.#at - 1;
    while (this.#text[before] === '\\') before -= 1;
    return (this.#at - before) % 2 === 0;
  }

  #word(shape: Shape, path: Path): unknown {
    const word = this.#pass(/[-+.\w]*/y);
    if (word === 'null') return null;
    if (word === 'true' || word === 'false') {
      requireType(shape === 'any' || shape === 'boolean', shape, path);
      return word === 'true';
    }
    // Go takes 1.0 and 1e3 for no whole numbers, and JavaScript rounds what is beyond 2^53.
    const isExact = /^(?:0|-?[1-9]\d*)$/.test(word) && Number.isSafeInteger(Number(word));
    requireType(shape === 'any' || (shape === 'integer' && isExact), shape, path);
    return Number(word);
  }

  /** The next character that is no blank; it isn't passed by. */
  #next(): string {
    this.#pass(/[ \t\r\n]*/y);
    return this.#text[this.#at] ?? '';
  }

  #pass(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [passed = ''] = pattern.exec(this.#text) ?? [];
    this.#at += passed.length;
    return passed;
  }
}

function requireType(fits: boolean, shape: Shape, path: Path): void {
  if (!fits) throw new Refusal(`has something other than ${typeName(shape)} ${at(path)}`);
}

function typeName(shape: Shape): string {
  if (typeof shape === 'object') return 'items' in shape ? 'a list' : 'an object';
  return shape === 'integer' ? 'a whole number below 2^53' : `a ${shape}`;
}

function said(name: string): string {
  return `"${quoteForeign(name, 80)}"`;
}

function at(path: Path): string {
  return path.length === 0 ? 'at its top' : `in ${quoteForeign(path.join('.'), 120)}`;
}
