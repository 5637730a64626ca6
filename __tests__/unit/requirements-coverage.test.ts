import { describe, expect, test } from '@jest/globals';
import { coverageProblems } from '../../dev/requirements-coverage.ts';
import { citationsOf, citationsOfScenarios } from '../../dev/test-titles.ts';

describe('the requirements that a test file cites', () => {
  test.each([
    ['a test', "test('S1.3, C.5: x', () => {});", [{ title: 'S1.3, C.5: x', ids: ['S1.3', 'C.5'] }]],
    ['a number from outside the documents', "test('x (B.11)', () => {});", [{ title: 'x (B.11)', ids: ['B.11'] }]],
    ['a number of two digits', "test('S1.10: x', () => {});", [{ title: 'S1.10: x', ids: ['S1.10'] }]],
    ['a describe', "describe('plan (S0.3)', () => {});", [{ title: 'plan (S0.3)', ids: ['S0.3'] }]],
    ['a test inside a describe', "describe('a', () => { test('S0.1', f); });", [{ title: 'S0.1', ids: ['S0.1'] }]],
    ['a table’s title', "test.each([['S0.1']])('S0.2: %s', f);", [{ title: 'S0.2: %s', ids: ['S0.2'] }]],
    [
      'its rows',
      "test.each([['S0.1: a', 1], ['b', 2]] as const)('of %s', f);",
      [{ title: 'of S0.1: a', ids: ['S0.1'] }],
    ],
    ['its plain rows', "test.each(['S0.1: a', 'b'])('%s', f);", [{ title: 'S0.1: a', ids: ['S0.1'] }]],
    ['a test without a number', "test('x', () => {});", []],
    ['a skipped test', "test.skip('S1.3: x', () => {});", []],
    ['a skipped describe', "describe.skip('x', () => { test('S0.1', f); });", []],
    ['a test to do', "test.todo('S1.3: x');", []],
    ['a comment', "// test('S1.3: x')", []],
    ['another call', "expect('S1.3');", []],
  ])('%s', (_, source, found) => {
    expect(citationsOf(source)).toEqual(found);
  });
});

test('an end-to-end scenario cites requirements only in its title', () => {
  const source = "const a = { name: 'S0.1', title: 'six legs (S4.2)', recipes: ['S0.2'] }; const b = { title: other };";
  expect(citationsOfScenarios(source)).toEqual([{ title: 'six legs (S4.2)', ids: ['S4.2'] }]);
});

test('a row without a test is reported, and so is a number without a row', () => {
  const row = (id: string) => ({ id, text: 'text' });
  const proof = { file: 'unit/a.test.ts', title: 'S0.1, S9.9: a', ids: ['S0.1', 'S9.9'] };
  expect(coverageProblems([row('S0.1'), row('S0.2')], [proof])).toEqual([
    'S0.2 (text): no test names it',
    'unit/a.test.ts › S0.1, S9.9: a: there is no requirement S9.9',
  ]);
});

test('an open row needs no test, and its finished part may have some', () => {
  const row = { id: 'B.12', text: 'text', open: 'not built' };
  expect(coverageProblems([row], [])).toEqual([]);
  expect(coverageProblems([row], [{ file: 'unit/a.test.ts', title: 'a (B.12)', ids: ['B.12'] }])).toEqual([]);
});
