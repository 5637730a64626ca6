import { getInput } from '@actions/core';
import { parse } from 'csv-parse/sync';
import { HandoverError } from '../errors.ts';
import { quoteForeign } from '../text.ts';

/** Reads the step's inputs by name. Defaults are action.yml's affair: the runner fills them in. */
export interface Inputs {
  /** A text without surrounding white space. Throws `invalid-input` when it is empty. */
  text(name: string): string;
  /** The same, but empty means undefined. */
  optional(name: string): string | undefined;
  /** The text as it came, line ends included; undefined when it was left at the default `none`. */
  unlessNone(name: string): string | undefined;
  boolean(name: string): boolean;
  integer(name: string, min: number, max: number): number;
  /** A number that may have decimals. */
  decimal(name: string, min: number, max: number): number;
  /** One item a line; a comma inside an item stays (docker/build-push-action reads build-args so). */
  lines(name: string): readonly string[];
  /** One item a line or between commas (docker/build-push-action reads add-hosts so). */
  list(name: string): readonly string[];
}

export function actionInputs(): Inputs {
  const optional = (name: string): string | undefined => getInput(name) || undefined;
  const text = (name: string): string => {
    const value = optional(name);
    if (value === undefined) throw invalid(name, '', 'a value', `Remove the line \`${name}:\` to use the default.`);
    return value;
  };
  return {
    text,
    optional,
    unlessNone: (name) => {
      const given = process.env[`INPUT_${name.toUpperCase()}`];
      return given === undefined || given.trim() === 'none' ? undefined : given;
    },
    boolean: (name) => {
      const value = text(name).toLowerCase();
      if (value === 'true' || value === 'false') return value === 'true';
      throw invalid(name, value, 'true or false');
    },
    integer: (name, min, max) => number(name, text(name), /^\d+$/, 'a whole number', min, max),
    decimal: (name, min, max) => number(name, text(name), /^\d+(?:\.\d+)?$/, 'a number', min, max),
    lines: (name) =>
      records(name, getInput(name))
        .map((record) => record.join(',').trim())
        .filter(Boolean),
    list: (name) =>
      records(name, getInput(name))
        .flat()
        .map((item) => item.trim())
        .filter(Boolean),
  };
}

function number(name: string, value: string, form: RegExp, what: string, min: number, max: number): number {
  const result = Number(value);
  if (form.test(value) && result >= min && result <= max) return result;
  throw invalid(name, value, `${what} from ${String(min)} to ${String(max)}`);
}

// CSV by line, as docker/actions-toolkit reads lists: quotes around a whole item keep line ends and commas in it.
function records(name: string, value: string): readonly string[][] {
  if (value === '') return [];
  try {
    return parse(value, { columns: false, relaxQuotes: true, relaxColumnCount: true, skipEmptyLines: true });
  } catch {
    throw invalid(name, value, 'one item a line, with quotes that are closed');
  }
}

function invalid(name: string, value: string, expected: string, hint?: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `The input \`${name}\` is "${quoteForeign(value)}"; expected ${expected}.`,
    hint ?? `Correct \`${name}\` under \`with:\`.`,
  );
}
