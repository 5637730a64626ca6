import { attempt } from './errors.ts';
import { limits } from './limits.ts';
import { quoteForeign } from './text.ts';

// The only reader of JSON that defines an image: configs, manifests, indexes and a Docker archive's manifest.json. Engines read these
// documents with Go's `encoding/json`, which differs from `JSON.parse`. Go matches member names case-insensitively, takes the
// last of two, replaces invalid UTF-8 with U+FFFD, and ignores a member that is null. A document could use this to be one image to
// this step and another to the engine. So this reader refuses any document that can be read in two ways. A property test compares
// it with Go's own reader (__tests__/unit/strict-json.test.ts).

/**
 * Go's types. A struct has a fixed set of member names; unknown members may have any value. In a map, such as labels, the names are
 * data and case-sensitive: only its values have a shape.
 */
export type Shape =
  | 'any'
  | 'string'
  | 'integer'
  | 'boolean'
  | { readonly members: Members }
  | { readonly items: Shape }
  | { readonly values: Shape };

type Members = Readonly<Record<string, Shape>>;

/** The value, or the reason for a refusal as a predicate: "the document" is its subject. */
type StrictJson = { readonly value: unknown } | { readonly why: string };

/** Reads a document of this shape, of at most `limits.jsonBytes`. A member that is null is kept as null: Go ignores it. */
export function readStrictJson(bytes: Uint8Array, shape: Shape): StrictJson {
  try {
    const text = textOf(bytes);
    // Go and JavaScript accept the same grammar (RFC 8259). They differ only in how they interpret valid text.
    if (attempt((): unknown => JSON.parse(text), undefined) === undefined) throw new Refusal('is not one JSON value');
    return { value: new Reader(text).value(shape) };
  } catch (error) {
    if (error instanceof Refusal) return { why: error.message };
    throw error;
  }
}

class Refusal extends Error {}

function textOf(bytes: Uint8Array): string {
  if (bytes.length > limits.jsonBytes) throw new Refusal(`has more than ${String(limits.jsonBytes)} bytes`);
  const text = attempt(() => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes), undefined);
  if (text === undefined) throw new Refusal('is not UTF-8');
  if (text.startsWith('\ufeff')) throw new Refusal('begins with a byte-order mark');
  return text;
}

/**
 * Folds a member name so that two names are equal here if they are equal in Go, which uses Unicode's simple folding (encoding/json,
 * fold.go). This folding is coarser for a few letters. `ſ` becomes s, and the Kelvin sign becomes k.
 */
function foldedName(name: string): string {
  // In ASCII, only capitals fold.
  if (/^[ -@[-~]*$/.test(name)) return name;
  return Array.from(name, (letter) => letter.toLowerCase().toUpperCase().toLowerCase()).join('');
}

const noMembers: Members = {};
const spellings = new WeakMap<Members, ReadonlyMap<string, string>>();

/** Returns the known names by their folded form. Computed once per shape, because a document may have millions of objects. */
function spellingsOf(members: Members): ReadonlyMap<string, string> {
  const found = spellings.get(members) ?? new Map(Object.keys(members).map((name) => [foldedName(name), name]));
  spellings.set(members, found);
  return found;
}

/** Reads grammatically valid JSON. */
class Reader {
  readonly #text: string;
  #at = 0;
  #values = 0;
  /** The path to the current value: names and positions from the top. */
  readonly #path: (string | number)[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  /** @param fitsNull whether the value may be null here */
  #inside(step: string | number, shape: Shape, fitsNull: boolean): unknown {
    this.#path.push(step);
    const value = this.value(shape);
    if (value === null) this.#require(fitsNull, shape);
    this.#path.pop();
    return value;
  }

  value(shape: Shape): unknown {
    this.#values += 1;
    if (this.#values > limits.jsonValues) throw new Refusal(`has more than ${String(limits.jsonValues)} values`);
    if (this.#path.length > limits.jsonDepth)
      throw new Refusal(`is nested deeper than ${String(limits.jsonDepth)} levels`);
    switch (this.#next()) {
      case '{':
        return this.#object(shape);
      case '[':
        return this.#list(shape);
      case '"':
        this.#require(shape === 'any' || shape === 'string', shape);
        return this.#string();
      default:
        return this.#word(shape);
    }
  }

  #object(shape: Shape): unknown {
    const isMap = typeof shape === 'object' && 'values' in shape;
    const known = typeof shape === 'object' && 'members' in shape ? shape.members : noMembers;
    this.#require(shape === 'any' || isMap || known !== noMembers, shape);
    const names = new Map<string, string>();
    const spelled = spellingsOf(known);
    const members = this.#items('}', (): readonly [string, unknown] => {
      const name = this.#string();
      const key = isMap ? name : foldedName(name);
      const twin = names.get(key);
      if (twin !== undefined)
        throw new Refusal(`has ${said(twin)} and ${said(name)} ${this.#place()}, which engines treat as the same name`);
      const spelling = spelled.get(key) ?? name;
      if (spelling !== name)
        throw new Refusal(`has ${said(name)} ${this.#place()}, which is ${said(spelling)} to an engine`);
      if (name === '__proto__') throw new Refusal(`has ${said(name)} ${this.#place()}`);
      names.set(key, name);
      this.#next();
      this.#at += 1;
      const own = isMap ? shape.values : Object.hasOwn(known, name) ? (known[name] ?? 'any') : 'any';
      // In a map, Go turns null into an empty string.
      return [name, this.#inside(name, own, !isMap || own !== 'string')];
    });
    return Object.fromEntries(members);
  }

  #list(shape: Shape): unknown {
    const isList = typeof shape === 'object' && 'items' in shape;
    this.#require(shape === 'any' || isList, shape);
    const own = isList ? shape.items : 'any';
    // Go turns null into an empty item.
    return this.#items(']', (position) => this.#inside(position, own, own === 'any'));
  }

  /** Reads items between two brackets, up to `end`. */
  #items<T>(end: string, item: (position: number) => T): readonly T[] {
    const items: T[] = [];
    this.#at += 1;
    while (this.#next() !== end) {
      if (this.#next() === ',') this.#at += 1;
      this.#next();
      items.push(item(items.length));
    }
    this.#at += 1;
    return items;
  }

  #string(): string {
    const start = this.#at;
    do this.#at = this.#text.indexOf('"', this.#at + 1);
    while (this.#isEscaped());
    this.#at += 1;
    const quoted = this.#text.slice(start, this.#at);
    const text = quoted.includes('\\') ? String(JSON.parse(quoted)) : quoted.slice(1, -1);
    if (text.includes('\0')) throw new Refusal(`has a NUL ${this.#place()}`);
    if (!text.isWellFormed()) throw new Refusal(`has a lone surrogate ${this.#place()}`);
    return text;
  }

  #isEscaped(): boolean {
    let before = this.#at - 1;
    while (this.#text[before] === '\\') before -= 1;
    return (this.#at - before) % 2 === 0;
  }

  #word(shape: Shape): unknown {
    const pattern = /[-+.\w]*/y;
    pattern.lastIndex = this.#at;
    const [word = ''] = pattern.exec(this.#text) ?? [];
    this.#at += word.length;
    if (word === 'null') return null;
    if (word === 'true' || word === 'false') {
      this.#require(shape === 'any' || shape === 'boolean', shape);
      return word === 'true';
    }
    // Go refuses 1.0 and 1e3 as integers, and JavaScript rounds numbers beyond 2^53.
    const isExact = /^(?:0|-?[1-9]\d*)$/.test(word) && Number.isSafeInteger(Number(word));
    this.#require(shape === 'any' || (shape === 'integer' && isExact), shape);
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

  #require(fits: boolean, shape: Shape): void {
    if (!fits) throw new Refusal(`has something other than ${typeName(shape)} ${this.#place()}`);
  }

  #place(): string {
    return this.#path.length === 0 ? 'at its top' : `in ${quoteForeign(this.#path.join('.'), 120)}`;
  }
}

function typeName(shape: Shape): string {
  if (typeof shape === 'object') return 'items' in shape ? 'a list' : 'an object';
  return shape === 'integer' ? 'a whole number below 2^53' : `a ${shape}`;
}

function said(name: string): string {
  return `"${quoteForeign(name, 80)}"`;
}
