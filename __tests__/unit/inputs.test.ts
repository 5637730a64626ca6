import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { actionInputs } from '../../shared/runner/inputs.ts';

const masked: string[] = [];
const given: string[] = [];
afterEach(() => {
  masked.length = 0;
  for (const name of given.splice(0)) Reflect.deleteProperty(process.env, name);
});

function inputs(values: Readonly<Record<string, string>>) {
  for (const [name, value] of Object.entries(values)) {
    const variable = name.startsWith('env:') ? name.slice(4) : `INPUT_${name.toUpperCase()}`;
    process.env[variable] = value;
    given.push(variable);
  }
  return actionInputs((secret) => masked.push(secret));
}

const list = (text: string): readonly string[] => inputs({ foo: text }).list('foo');
const lines = (text: string): readonly string[] => inputs({ foo: text }).lines('foo');
const secrets = (text: string): readonly string[] => inputs({ foo: text }).secrets('foo');

// The texts and their items are from "getInputList" in docker/actions-toolkit, __tests__/util.test.ts. build-push-action
// parses its inputs like this, and a step that changes to this action must keep its meaning.
describe('lists are read as in docker/actions-toolkit', () => {
  test.each([
    ['a single line', 'bar', ['bar']],
    ['nothing', '', []],
    ['several lines', 'bar\nbaz', ['bar', 'baz']],
    ['empty lines', 'bar\n\nbaz', ['bar', 'baz']],
    ['commas', 'bar,baz', ['bar', 'baz']],
    ['a comma at the end', 'bar,baz,', ['bar', 'baz']],
    ['other line ends', 'bar\r\nbaz', ['bar', 'baz']],
    ['other line ends and commas', 'bar\r\nbaz,bat', ['bar', 'baz', 'bat']],
    ['a # that isn’t a comment', 'foo=bar\nbar=qux#baz', ['foo=bar', 'bar=qux#baz']],
    ['a quoted line', 'linux/amd64\n"linux/arm64,linux/arm/v7"', ['linux/amd64', 'linux/arm64', 'linux/arm/v7']],
    ['a quoted item next to another, with its comma', '"a,b",c', ['a,b', 'c']],
  ])('a list can be separated by commas or lines: %s', (_, text, items) => {
    expect(list(text)).toEqual(items);
  });

  const key =
    '-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQdGBF6tzaABEACjFbX7PFEG6vDPN2MPyxYW7/3o/sonORj4HXUFjFxxJxktJ3x3\n=x7jt\n';
  test.each([
    ['a comma inside', 'user/app:cache\ntype=local,src=path/to/dir', ['user/app:cache', 'type=local,src=path/to/dir']],
    ['other line ends', 'user/app:cache\r\ntype=local,src=path', ['user/app:cache', 'type=local,src=path']],
    [
      'a quoted item of several lines',
      'TOKEN=abcdefgh,ijklmno=0123456789\n"MYSECRET=aaaaaaaa\nbbbbbbb\nccccccccc"\nFOO=bar',
      ['TOKEN=abcdefgh,ijklmno=0123456789', 'MYSECRET=aaaaaaaa\nbbbbbbb\nccccccccc', 'FOO=bar'],
    ],
    [
      'empty lines inside quotes',
      'A=1\n"MYSECRET=aaaaaaaa\n\nccc"\nFOO=bar\n"EMPTYLINE=aaaa\n\nbbbb\nccc"',
      ['A=1', 'MYSECRET=aaaaaaaa\n\nccc', 'FOO=bar', 'EMPTYLINE=aaaa\n\nbbbb\nccc'],
    ],
    [
      'several lines without quotes',
      'A=b,c=d\nMYSECRET=aaaaaaaa\nbbbbbbb\nFOO=bar',
      ['A=b,c=d', 'MYSECRET=aaaaaaaa', 'bbbbbbb', 'FOO=bar'],
    ],
    [
      'doubled quotes',
      'A=b\n"MYSECRET=aaaaaaaa\nbbbb""bbb\nccccccccc"\nFOO=bar',
      ['A=b', 'MYSECRET=aaaaaaaa\nbbbb"bbb\nccccccccc', 'FOO=bar'],
    ],
    ['a key in quotes', `"GPG_KEY=${key}"\nFOO=bar`, [`GPG_KEY=${key}`, 'FOO=bar']],
  ])('a list can be separated by lines: %s', (_, text, items) => {
    expect(secrets(text)).toEqual(items);
    expect(lines(text)).toEqual(items.map((item) => item.trim()));
  });

  test('secrets keep the line end that closes a key, and their spaces', () => {
    const value = 'PRIVATE_SSH_KEY=TESTESTTEST\nTESTESTTEST\n\n\n';
    expect(secrets(`"${value}"\n`)).toEqual([value]);
    expect(secrets('A= b \n \n\nC=d')).toEqual(['A= b ', 'C=d']);
  });

  test('unclosed quotes are an error, and the error never shows a secret', () => {
    expect(() => list('a\n"b')).toThrow('The input `foo` is "a "b"; expected one item per line, with closed quotes');
    expect(() => secrets('"KEY=hunter2')).toThrow('with closed quotes');
    expect(() => secrets('"KEY=hunter2')).not.toThrow('hunter2');
  });
});

describe('the values that are masked in the log', () => {
  test('masked values include each line of a secret as soon as it is read', () => {
    secrets('TOKEN=s3cret=x\n"KEY=-----BEGIN KEY-----\nb3BlbnNzaC1rZXk\n\n-----END KEY-----\n"');
    expect(masked).toEqual(['s3cret=x', '-----BEGIN KEY-----', 'b3BlbnNzaC1rZXk', '-----END KEY-----']);
  });

  test('masked values include a line without an id, just like a line with an id', () => {
    secrets('"KEY=abcdef\nghijkl"\nmnopqr');
    expect(masked).toEqual(['abcdef', 'ghijkl', 'mnopqr']);
  });

  test('masked values exclude short lines whose mask would only damage the log and the outputs', () => {
    secrets('"JSON={\n  ""a"": true,\n  ""password"": ""hunter2""\n}"\nFLAG=true\nN=1');
    expect(masked).toEqual(['"a": true,', '"password": "hunter2"']);
  });

  test('masked values include all lines even with unclosed quotes', () => {
    expect(() => secrets('"KEY=hunter2\nhunter3')).toThrow();
    expect(masked).toEqual(['hunter2', 'hunter3']);
  });

  test('masked values include the lines of a small secret file and of a variable, and nothing for a missing file or variable', () => {
    const folder = mkdtempSync(join(tmpdir(), 'inputs-'));
    try {
      const file = join(folder, 'npmrc');
      writeFileSync(file, '//registry.example/:_authToken=hunter2\n');
      expect(inputs({ foo: `npmrc=${file}\nx=${folder}/missing` }).secretFiles('foo')).toEqual([
        `npmrc=${file}`,
        `x=${folder}/missing`,
      ]);
      expect(masked.splice(0)).toEqual(['//registry.example/:_authToken=hunter2']);
      expect(inputs({ foo: 'a=SOME_TOKEN,b=NO_TOKEN', 'env:SOME_TOKEN': 'hunter2' }).secretEnvs('foo')).toEqual([
        'a=SOME_TOKEN',
        'b=NO_TOKEN',
      ]);
      expect(masked).toEqual(['hunter2']);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('inputs that would disable a check or select another image when they are empty', () => {
  const readers = ['orNone', 'listOrNone'] as const;
  test.each(readers.flatMap((reader) => ['', ' ', '\n', '\r\n \t'].map((text) => [reader, text] as const)))(
    'the reader %s refuses the empty input %j with the usual cause and the solution',
    (reader, text) => {
      expect(() => inputs({ foo: text })[reader]('foo')).toThrow(
        expect.objectContaining({
          code: 'invalid-input',
          message: 'The input `foo` is empty and would have no effect.',
          hint: expect.stringMatching(/`outputs:`.*`needs:`.*`none`.*\|\| 'none'/),
        }),
      );
    },
  );

  test('a list with only commas is also empty', () => {
    expect(() => inputs({ foo: ',\n,' }).listOrNone('foo')).toThrow(
      'The input `foo` is empty and would have no effect',
    );
  });

  test('`none` and a missing input mean no value, and any other text is read as usual', () => {
    expect(inputs({ foo: ' none\n' }).orNone('foo')).toBeUndefined();
    expect(inputs({}).orNone('bar')).toBeUndefined();
    expect(inputs({ foo: 'none' }).listOrNone('foo')).toEqual([]);
    expect(inputs({}).listOrNone('bar')).toEqual([]);
    expect(inputs({ foo: ' abc ' }).orNone('foo')).toBe('abc');
    expect(inputs({ foo: 'a,b\nnone' }).listOrNone('foo')).toEqual(['a', 'b', 'none']);
  });
});

describe('an expression that evaluates to a list or an object', () => {
  const readers = [
    'text',
    'optional',
    'unlessNone',
    'orNone',
    'listOrNone',
    'lines',
    'list',
    'secrets',
    'secretFiles',
    'secretEnvs',
  ] as const;
  test.each(
    readers.flatMap((reader) => ['Array', 'Object', ' Array\n', 'a:1\nArray'].map((text) => [reader, text] as const)),
  )('the reader %s refuses the text %j, and explains that it is from a list or an object', (reader, text) => {
    const what = text.includes('Object') ? 'an object' : 'a list';
    expect(() => inputs({ foo: text })[reader]('foo')).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining(`the value of an expression with ${what}`),
        hint: expect.stringMatching(/join\(|toJSON\(/),
      }),
    );
  });

  test.each(['boolean', 'integer', 'decimal'] as const)(
    'the reader %s refuses it like any other invalid text',
    (reader) => {
      expect(() => inputs({ foo: 'Array' })[reader]('foo', 0, 1)).toThrow('The input `foo` is "Array"');
    },
  );

  test.each(['Array-1', 'array', 'NAME=Array', 'Objects'])('%j is read as text', (text) => {
    expect(inputs({ foo: text }).text('foo')).toBe(text);
    expect(lines(text)).toEqual([text]);
  });
});
