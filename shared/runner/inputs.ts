import { getInput } from '@actions/core';
import { parse } from 'csv-parse/sync';
import { HandoverError } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { readSmallFileSync } from '../bytes/files.ts';
import { maskLines, maskSecret } from './outputs.ts';

/** Reads the step's inputs by name. Defaults are action.yml's affair: the runner fills them in. */
export interface Inputs {
  /** A text without surrounding white space. Throws `invalid-input` when it is empty. */
  text(name: string): string;
  /** The same, but empty means undefined. */
  optional(name: string): string | undefined;
  /** The text as it came, line ends included; undefined when it was left at the default `none`. */
  unlessNone(name: string): string | undefined;
  /**
   * A text whose absence switches a check off or takes another image; `none`, the default, says so on purpose. Throws `invalid-input` when
   * an empty text was given: that is what an expression leaves of an output that nobody declared.
   */
  orNone(name: string): string | undefined;
  /** The same for a list, read as `list` reads it; empty for `none`. */
  listOrNone(name: string): readonly string[];
  boolean(name: string): boolean;
  integer(name: string, min: number, max: number): number;
  /** A number that may have decimals. */
  decimal(name: string, min: number, max: number): number;
  /** One item a line; a comma inside an item stays (docker/build-push-action reads build-args so). */
  lines(name: string): readonly string[];
  /** One item a line or between commas (docker/build-push-action reads add-hosts so). */
  list(name: string): readonly string[];
  /** One `id=value` a line, untrimmed: a key may need its last line end. What is read is kept out of the log. */
  secrets(name: string): readonly string[];
  /** One `id=path` a line; what stands in the files is kept out of the log. */
  secretFiles(name: string): readonly string[];
  /** One `id=VARIABLE` a line or between commas; the variables' values are kept out of the log. */
  secretEnvs(name: string): readonly string[];
}

/** @param mask keeps a text out of the log */
export function actionInputs(mask: (secret: string) => void = maskSecret): Inputs {
  const optional = (name: string): string | undefined => read(name).trim() || undefined;
  const text = (name: string): string => {
    const value = optional(name);
    if (value === undefined) throw invalid(name, '', 'a value', `Remove the line \`${name}:\` to use the default.`);
    return value;
  };
  return {
    text,
    optional,
    unlessNone,
    orNone: (name) => {
      const given = unlessNone(name)?.trim();
      if (given === '') throw givenEmpty(name);
      return given;
    },
    listOrNone: (name) => {
      if (unlessNone(name) === undefined) return [];
      const given = list(name);
      if (given.length === 0) throw givenEmpty(name);
      return given;
    },
    boolean: (name) => {
      const value = text(name).toLowerCase();
      if (value === 'true' || value === 'false') return value === 'true';
      throw invalid(name, value, 'true or false');
    },
    integer: (name, min, max) => number(name, text(name), /^\d+$/, 'a whole number', min, max),
    decimal: (name, min, max) => number(name, text(name), /^\d+(?:\.\d+)?$/, 'a number', min, max),
    lines,
    list,
    secrets: (name) => {
      const items = rows(read(name))?.map((row) => row.join(','));
      // Before anything can fail: an error, too, is in the log.
      for (const item of items ?? read(name).split('\n')) maskLines(valueOf(item), mask);
      if (items === undefined) throw invalid(name, '(not shown)', closedQuotes);
      return items.filter((item) => item.trim() !== '');
    },
    secretFiles: (name) => {
      const items = lines(name);
      for (const item of items) maskLines(smallFile(valueOf(item)), mask);
      return items;
    },
    secretEnvs: (name) => {
      const items = list(name);
      for (const item of items) maskLines(process.env[valueOf(item)] ?? '', mask);
      return items;
    },
  };
}

// The runner applies a default only when the line is missing: so an empty text was given (docs/decisions/0022).
function unlessNone(name: string): string | undefined {
  const given = read(name);
  return process.env[variableOf(name)] === undefined || given.trim() === 'none' ? undefined : given;
}

function givenEmpty(name: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `The input \`${name}\` is given, but empty; it would have no effect.`,
    'Look at the expression it comes from. Usually the job that it names lacks this output under `outputs:`, or isn’t in the `needs:` of ' +
      `this job. To go without \`${name}\`, remove the line or write \`none\`, also in a condition: \`\${{ … || 'none' }}\`.`,
  );
}

function lines(name: string): readonly string[] {
  return items(records(name).map((row) => row.join(',')));
}

// Quotes around a whole line don't keep its commas together (docker/actions-toolkit, util.ts, getList).
function list(name: string): readonly string[] {
  return items(records(name).flatMap((row) => (row.length === 1 ? (row[0] ?? '').split(',') : row)));
}

function items(texts: readonly string[]): readonly string[] {
  return texts.map((text) => text.trim()).filter(Boolean);
}

function variableOf(name: string): string {
  return `INPUT_${name.replaceAll(' ', '_').toUpperCase()}`;
}

/** The text of an input, as it came; every reading of an input begins here. */
function read(name: string): string {
  const given = getInput(name, { trimWhitespace: false });
  // Actions turns what isn't a single value into its type's name (docs.github.com: "Evaluate expressions", "Literals").
  const lost = given
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line === 'Array' || line === 'Object');
  if (lost === undefined) return given;
  const [what, hint] =
    lost === 'Array'
      ? [
          'a list',
          "Join its items into text: ${{ join(fromJSON(…).tags, ',') }}, or let the step before put out lines.",
        ]
      : ['an object', 'Take one of its fields, or its text: ${{ toJSON(…) }}.'];
  throw new HandoverError(
    'invalid-input',
    `The input \`${name}\` ${given.trim() === lost ? 'is' : 'has the line'} "${lost}", which is what an expression leaves of ${what}.`,
    `${hint} An output of a step is text already: \${{ steps.meta.outputs.tags }}.`,
  );
}

function valueOf(item: string): string {
  return item.slice(item.indexOf('=') + 1);
}

// A file that a secret is read from; a large one isn't made of lines that anybody would print.
const maxSecretFile = 64 * 1024;

/** Its text, as far as there is one to be masked: whether the file is there is the build's to say. */
function smallFile(path: string): string {
  try {
    return readSmallFileSync(path, maxSecretFile).toString();
  } catch {
    return '';
  }
}

function number(name: string, value: string, form: RegExp, what: string, min: number, max: number): number {
  const result = Number(value);
  if (form.test(value) && result >= min && result <= max) return result;
  throw invalid(name, value, `${what} from ${String(min)} to ${String(max)}`);
}

const closedQuotes = 'one item a line, with quotes that are closed';

function records(name: string): readonly string[][] {
  const value = read(name).trim();
  const found = rows(value);
  if (found === undefined) throw invalid(name, value, closedQuotes);
  return found;
}

// CSV by line, as docker/actions-toolkit reads lists: quotes around a whole item keep line ends in it. Undefined where
// quotes aren't closed.
function rows(value: string): readonly string[][] | undefined {
  if (value.trim() === '') return [];
  try {
    return parse(value, { columns: false, relaxQuotes: true, relaxColumnCount: true, skipEmptyLines: true });
  } catch {
    return undefined;
  }
}

function invalid(name: string, value: string, expected: string, hint?: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `The input \`${name}\` is "${quoteForeign(value)}"; expected ${expected}.`,
    hint ?? `Correct \`${name}\` under \`with:\`.`,
  );
}
