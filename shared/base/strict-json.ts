import { limits } from './limits.ts';
import { quoteForeign } from './text.ts';

// The one reader of JSON that names an image: configs, manifests, indexes and a Docker archive's manifest.json. Engines read these
// documents with Go's `encoding/json`, which differs from `JSON.parse`. Go matches member names without regard to case, takes the
// last of two, replaces invalid UTF-8 by U+FFFD, and ignores a member that is null. A document that uses this difference is one image
// to this step and another to the engine. So this reader refuses any document that can be read in two ways. A property test compares
// it with Go's own reader (__tests__/unit/strict-json.test.ts).

/** The members that Go's structs have, and their types. Unknown members may have any value. */
export type Shape = 'any' | 'string' | 'integer' | 'boolean' | ObjectShape | ListShape | MapShape;

/** A Go struct: a fixed set of member names. */
interface ObjectShape {
  readonly members: Readonly<Record<string, Shape>>;
}

interface ListShape {
  readonly items: Shape;
}

/** A Go map, such as labels: member names are data and case-sensitive. */
interface MapShape {
  readonly values: Shape;
}

/** The value, or the reason for a refusal: the end of a sentence whose subject is the document. */
type StrictJson = { readonly value: unknown } | { readonly why: string };

/** Reads a document of this shape, of at most `limits.jsonBytes`. A member that is null is kept as null: Go ignores it. */
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

// Go and JavaScript accept the same grammar (RFC 8259): they differ only in what a valid text means.
function requireGrammar(text: string): void {
  try {
    JSON.parse(text);
  } catch {
    throw new Refusal('is not one JSON value');
  }
}

/**
 * Folds a member name so that two names are equal here if they are equal to Go, which uses Unicode's simple folding (encoding/json,
 * fold.go). This folding is coarser for a few letters. `ſ` becomes s, and the Kelvin sign becomes k.
 */
function foldedName(name: string): string {
  // Of ASCII, only capitals fold.
  if (/^[ -@[-~]*$/.test(name)) return name;
  return Array.from(name, (letter) => letter.toLowerCase().toUpperCase().toLowerCase()).join('');
}

type Path = readonly (string | number)[];

const noMembers: ObjectShape['members'] = {};
const spellings = new WeakMap<ObjectShape['members'], ReadonlyMap<string, string>>();

/** The known names, by what they fold to. Worked out once for each shape: a document may have millions of objects. */
function spellingsOf(members: ObjectShape['members']): ReadonlyMap<string, string> {
  const found = spellings.get(members) ?? new Map(Object.keys(members).map((name) => [foldedName(name), name]));
  spellings.set(members, found);
  return found;
}

/** Reads a text whose grammar is valid. */
class Reader {
  readonly #text: string;
  #at = 0;
  #values = 0;
  /** Where the reader is: the names and positions from the top. */
  readonly #path: (string | number)[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  document(shape: Shape): unknown {
    return this.#value(shape);
  }

  #inside(step: string | number, shape: Shape): unknown {
    this.#path.push(step);
    const value = this.#value(shape);
    this.#path.pop();
    return value;
  }

  #value(shape: Shape): unknown {
    const path = this.#path;
    this.#values += 1;
    if (this.#values > limits.jsonValues) throw new Refusal(`has more than ${String(limits.jsonValues)} values`);
    if (path.length > limits.jsonDepth) throw new Refusal(`is nested deeper than ${String(limits.jsonDepth)} levels`);
    switch (this.#next()) {
      case '{':
        return this.#object(shape);
      case '[':
        return this.#list(shape);
      case '"':
        requireType(shape === 'any' || shape === 'string', shape, path);
        return this.#string();
      default:
        return this.#word(shape);
    }
  }

  #object(shape: Shape): unknown {
    const path = this.#path;
    const isMap = typeof shape === 'object' && 'values' in shape;
    const known = typeof shape === 'object' && 'members' in shape ? shape.members : noMembers;
    requireType(shape === 'any' || isMap || (typeof shape === 'object' && 'members' in shape), shape, path);
    const names = new Map<string, string>();
    const spelled = spellingsOf(known);
    const members = this.#items('}', (): readonly [string, unknown] => {
      const name = this.#string();
      const key = isMap ? name : foldedName(name);
      const twin = names.get(key);
      if (twin !== undefined)
        throw new Refusal(`has ${said(twin)} and ${said(name)} ${at(path)}, which is one name to an engine`);
      const spelling = spelled.get(key) ?? name;
      if (spelling !== name)
        throw new Refusal(`has ${said(name)} ${at(path)}, which is ${said(spelling)} to an engine`);
      if (name === '__proto__') throw new Refusal(`has ${said(name)} ${at(path)}`);
      names.set(key, name);
      this.#next();
      this.#at += 1;
      const own = isMap ? shape.values : Object.hasOwn(known, name) ? (known[name] ?? 'any') : 'any';
      const value = this.#inside(name, own);
      // Go turns null into an empty string.
      if (value === null && isMap) requireType(own !== 'string', own, [...path, name]);
      return [name, value];
    });
    return Object.fromEntries(members);
  }

  #list(shape: Shape): unknown {
    const path = this.#path;
    const isList = typeof shape === 'object' && 'items' in shape;
    requireType(shape === 'any' || isList, shape, path);
    const own = isList ? shape.items : 'any';
    let position = 0;
    return this.#items(']', () => {
      const value = this.#inside(position, own);
      // Go turns null into an empty item.
      if (value === null) requireType(own === 'any', own, [...path, position]);
      position += 1;
      return value;
    });
  }

  /** Reads items between two brackets, up to `end`. */
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

  #string(): string {
    const path = this.#path;
    const start = this.#at;
    do this.#at = this.#text.indexOf('"', this.#at + 1);
    while (this.#isEscaped());
    this.#at += 1;
    const quoted = this.#text.slice(start, this.#at);
    const text = quoted.includes('\\') ? String(JSON.parse(quoted)) : quoted.slice(1, -1);
    if (text.includes('\0')) throw new Refusal(`has a NUL ${at(path)}`);
    if (!text.isWellFormed()) throw new Refusal(`has a lone surrogate ${at(path)}`);
    return text;
  }

  #isEscaped(): boolean {
    let before = this.#at - 1;
    while (this.#text[before] === '\\') before -= 1;
    return (this.#at - before) % 2 === 0;
  }

  #word(shape: Shape): unknown {
    const path = this.#path;
    const word = this.#pass(/[-+.\w]*/y);
    if (word === 'null') return null;
    if (word === 'true' || word === 'false') {
      requireType(shape === 'any' || shape === 'boolean', shape, path);
      return word === 'true';
    }
    // Go refuses 1.0 and 1e3 as integers, and JavaScript rounds numbers beyond 2^53.
    const isExact = /^(?:0|-?[1-9]\d*)$/.test(word) && Number.isSafeInteger(Number(word));
    requireType(shape === 'any' || (shape === 'integer' && isExact), shape, path);
    return Number(word);
  }

  /** Skips blanks and returns the next character, without consuming it. */
  #next(): string {
    while (this.#isBlank()) this.#at += 1;
    return this.#text[this.#at] ?? '';
  }

  #isBlank(): boolean {
    const code = this.#text.charCodeAt(this.#at);
    return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
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
