import { getInput } from '@actions/core';
import { parse } from 'csv-parse/sync';
import { type HandoverError, invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { readSmallFileSync } from '../bytes/files.ts';
import { maskLines, maskSecret } from './outputs.ts';

/** Reads the step's inputs by name. Defaults come from action.yml. */
export interface Inputs {
  /** Returns a text without surrounding white space. Throws `invalid-input` if it is empty. */
  text(name: string): string;
  /** Returns undefined for an empty text. */
  optional(name: string): string | undefined;
  /** Returns the unchanged text; undefined for the default `none`. */
  unlessNone(name: string): string | undefined;
  /**
   * Returns a text whose absence disables a check or selects another image; undefined for the default `none`. Throws `invalid-input` for an
   * empty text, which is the value of an expression with an undeclared output.
   */
  orNone(name: string): string | undefined;
  /** The same for a list. Empty for `none`. */
  listOrNone(name: string): readonly string[];
  boolean(name: string): boolean;
  integer(name: string, min: number, max: number): number;
  /** Returns a number with or without decimals. */
  decimal(name: string, min: number, max: number): number;
  /** Returns one item per line. An item may contain commas, as in the build-args of docker/build-push-action. */
  lines(name: string): readonly string[];
  /** Returns one item per line or between commas, as in the add-hosts of docker/build-push-action. */
  list(name: string): readonly string[];
  /** Returns one `id=value` per line, untrimmed, because a key may need its last line end. Masks the values. */
  secrets(name: string): readonly string[];
  /** Returns one `id=path` per line. Masks the content of the files. */
  secretFiles(name: string): readonly string[];
  /** Returns one `id=VARIABLE` per line or between commas. Masks the values of the variables. */
  secretEnvs(name: string): readonly string[];
}

/** @param mask called with each text to keep out of the log */
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
      // Masked before any error, which would be in the log.
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

// The runner applies a default only if the line is missing (docs/decisions/0022).
function unlessNone(name: string): string | undefined {
  const given = read(name);
  return process.env[variableOf(name)] === undefined || given.trim() === 'none' ? undefined : given;
}

function givenEmpty(name: string): HandoverError {
  return invalidInput(
    `The input \`${name}\` is empty and would have no effect.`,
    'Check its expression. Usually the other job doesn’t declare this output under `outputs:`, or isn’t in the `needs:` of ' +
      `this job. To disable \`${name}\`, remove the line or set \`none\`, also in a condition: \`\${{ … || 'none' }}\`.`,
  );
}

function lines(name: string): readonly string[] {
  return items(records(name).map((row) => row.join(',')));
}

// Quotes around a whole line don't protect its commas (docker/actions-toolkit, util.ts, getList).
function list(name: string): readonly string[] {
  return items(records(name).flatMap((row) => (row.length === 1 ? (row[0] ?? '').split(',') : row)));
}

function items(texts: readonly string[]): readonly string[] {
  return texts.map((text) => text.trim()).filter(Boolean);
}

function variableOf(name: string): string {
  return `INPUT_${name.replaceAll(' ', '_').toUpperCase()}`;
}

/** Returns the unchanged text of an input. */
function read(name: string): string {
  const given = getInput(name, { trimWhitespace: false });
  // Actions converts a list or an object to the name of its type (docs.github.com: "Evaluate expressions", "Literals").
  const lost = given
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line === 'Array' || line === 'Object');
  if (lost === undefined) return given;
  const [what, hint] =
    lost === 'Array'
      ? ['a list', "Join its items: ${{ join(fromJSON(…).tags, ',') }}, or output lines in the earlier step."]
      : ['an object', 'Use one of its fields, or its text: ${{ toJSON(…) }}.'];
  throw invalidInput(
    `The input \`${name}\` ${given.trim() === lost ? 'is' : 'has the line'} "${lost}", the value of an expression with ${what}.`,
    `${hint} The output of a step is already text: \${{ steps.meta.outputs.tags }}.`,
  );
}

function valueOf(item: string): string {
  return item.slice(item.indexOf('=') + 1);
}

// The maximum size of a file of secrets, in bytes. Lines of larger files are not masked.
const maxSecretFile = 64 * 1024;

/** Returns the text of a file, or an empty one. The build reports a missing file. */
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

const closedQuotes = 'one item per line, with closed quotes';

function records(name: string): readonly string[][] {
  const value = read(name).trim();
  const found = rows(value);
  if (found === undefined) throw invalid(name, value, closedQuotes);
  return found;
}

// Reads CSV, as docker/actions-toolkit reads lists. Undefined if quotes are not closed.
function rows(value: string): readonly string[][] | undefined {
  if (value.trim() === '') return [];
  try {
    return parse(value, { columns: false, relaxQuotes: true, relaxColumnCount: true, skipEmptyLines: true });
  } catch {
    return undefined;
  }
}

function invalid(name: string, value: string, expected: string, hint?: string): HandoverError {
  return invalidInput(
    `The input \`${name}\` is "${quoteForeign(value)}"; expected ${expected}.`,
    hint ?? `Correct \`${name}\` under \`with:\`.`,
  );
}
