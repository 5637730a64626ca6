import { getInput } from '@actions/core';
import { parse } from 'csv-parse/sync';
import { type HandoverError, invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { readSmallFileSync } from '../bytes/files.ts';
import { maskLines, maskSecret } from './outputs.ts';

/** Reads the step's inputs by name. Defaults come from action.yml. */
export type Inputs = Readonly<ReturnType<typeof actionInputs>>;

/** @param mask called with each text to keep out of the log */
export function actionInputs(mask: (secret: string) => void = maskSecret) {
  return {
    text,
    optional,
    unlessNone,
    orNone,
    listOrNone,
    boolean: (name: string): boolean => {
      const value = text(name).toLowerCase();
      if (value === 'true' || value === 'false') return value === 'true';
      throw invalid(name, value, 'true or false');
    },
    integer: (name: string, min: number, max: number) => number(name, /^\d+$/, 'a whole number', min, max),
    /** Returns a number with or without decimals. */
    decimal: (name: string, min: number, max: number) => number(name, /^\d+(?:\.\d+)?$/, 'a number', min, max),
    lines,
    list,
    /** Returns one `id=value` per line, untrimmed, because a key may need its last line end. Masks the values. */
    secrets: (name: string): readonly string[] => {
      const found = rows(read(name))?.map((row) => row.join(','));
      // Masked before any error, which would be in the log.
      for (const item of found ?? read(name).split('\n')) maskLines(valueOf(item), mask);
      if (found === undefined) throw invalid(name, '(not shown)', closedQuotes);
      return found.filter((item) => item.trim() !== '');
    },
    /** Returns one `id=path` per line. Masks the content of the files. */
    secretFiles: (name: string): readonly string[] => {
      const found = lines(name);
      for (const item of found) maskLines(smallFile(valueOf(item)), mask);
      return found;
    },
    /** Returns one `id=VARIABLE` per line or between commas. Masks the values of the variables. */
    secretEnvs: (name: string): readonly string[] => {
      const found = list(name);
      for (const item of found) maskLines(process.env[valueOf(item)] ?? '', mask);
      return found;
    },
  };
}

/** Returns a text without surrounding white space. Throws `invalid-input` if it is empty. */
function text(name: string): string {
  const value = optional(name);
  if (value === undefined) throw invalid(name, '', 'a value', `Remove the line \`${name}:\` to use the default.`);
  return value;
}

/** Returns undefined for an empty text. */
function optional(name: string): string | undefined {
  return read(name).trim() || undefined;
}

/** Returns the unchanged text; undefined for the default `none`. The runner applies it only if the line is missing (docs/decisions/0022). */
function unlessNone(name: string): string | undefined {
  const given = read(name);
  return process.env[variableOf(name)] === undefined || given.trim() === 'none' ? undefined : given;
}

/**
 * Returns a text whose absence disables a check or selects another image; undefined for the default `none`. Throws `invalid-input` for an
 * empty text, which is the value of an expression with an undeclared output.
 */
function orNone(name: string): string | undefined {
  const given = unlessNone(name)?.trim();
  if (given === '') throw givenEmpty(name);
  return given;
}

/** The same for a list. Empty for `none`. */
function listOrNone(name: string): readonly string[] {
  const given = unlessNone(name) === undefined ? undefined : list(name);
  if (given?.length === 0) throw givenEmpty(name);
  return given ?? [];
}

function givenEmpty(name: string): HandoverError {
  return invalidInput(
    `The input \`${name}\` is empty and would have no effect.`,
    'Check its expression. Usually the other job doesn’t declare this output under `outputs:`, or isn’t in the `needs:` of ' +
      `this job. To disable \`${name}\`, remove the line or set \`none\`, also in a condition: \`\${{ … || 'none' }}\`.`,
  );
}

/** Returns one item per line. An item may contain commas, as in the build-args of docker/build-push-action. */
function lines(name: string): readonly string[] {
  return items(records(name).map((row) => row.join(',')));
}

/**
 * Returns one item per line or between commas, as in the add-hosts of docker/build-push-action. Quotes around a whole line don't protect
 * its commas (docker/actions-toolkit, util.ts, getList).
 */
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

function number(name: string, form: RegExp, what: string, min: number, max: number): number {
  const value = text(name);
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
