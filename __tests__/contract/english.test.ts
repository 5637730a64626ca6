import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import ts from 'typescript';
import { projectRoot } from '../../dev/action-runner.ts';

/** The files that are written in plain English so far. Add a pattern when more of them are. */
const rewritten = ['*.md', 'docs/*.md', 'docs/decisions/*.md', 'examples/**/*.md', 'examples/**/*.yml'];

/** Sources whose comments and messages are in plain English so far. */
const rewrittenSources = [
  'export-image/**/*.ts',
  '{load-image,publish-image,joined}/**/*.ts',
  'shared/**/*.ts',
  '{dev,bench}/*.{ts,mjs}',
  '__tests__/{e2e,fakes,fixtures}/**/*.{ts,mjs}',
  '__tests__/{contract,scenario,faults}/!(english).test.ts',
  '__tests__/unit/!(save-image).test.ts',
  '__tests__/integration/!(podman|tarballs).test.ts',
  '__tests__/fakes/docker/client.cjs',
  '*.config.mjs',
];

/** Written by `npm run docs` from the titles of the tests. */
const generated = ['docs/requirements-coverage.md'];

/** The texts about each action that users read: its inputs and outputs, and its README. Also in plain English. */
const ofActions = ['action.yml', '*-image/action.yml', '{*-image,joined}/README.md'];

/** Headings that tests and other documents use as a key. */
const keys = [
  'Have the image here, whoever builds it',
  'Take the image from the registry, or from whichever has it',
  'What is held against artifacts',
];

const maxWords = 25;

/** A phrase, and what to write instead. */
type Banned = readonly [phrase: RegExp, instead: string];

const banned: readonly Banned[] = [
  // Only people tell and are asked.
  [
    /\b(?:is|are|was|were|be|been) told\b|\btold (?:of|for|from|by|so)\b|\bhea(?:rs?|rd) of\b/,
    'is called with, reports',
  ],
  [
    /\b(?:logs?|records?|artifacts?|files?|messages?|outputs?|labels?|digests?|services?|bytes) (?:says?|tells?)\b/,
    'shows',
  ],
  [/\b(?:is|are|was|were|been) asked\b/, 'is requested'],
  [/\bsays? otherwise\b|\b(?:is|are|was) said to\b|\bnot believed\b/, 'the setting, the source'],
  // A thing is not a person.
  [/\b(?:no|some|every|any)body\b|\bwho(?:ever|soever)\b|\bwhichever\b/, 'the consumer, other processes'],
  [/\bwhatever (?:the|it|is|else|goes|becomes)\b/, 'any, every'],
  [/\bof (?:ours|theirs|our own)\b|\bby ourselves\b/, 'temporary, of this step'],
  [/\bwho (?:the|an|its) images? (?:is|are)\b/, "the image's identity"],
  // It is in its place; it doesn't lie, stand or go there.
  [/\b(?:lie|lies|lay|lain) (?:in|at|behind|beside)\b|\b(?:stands?|stood) (?:for|in|at)\b/, 'is in, is'],
  [/\b(?:goes|go) again\b/, 'is removed, is sent again'],
  [/\bc(?:ome|omes|ame|oming) to (?:nothing|its end|their end)\b/, 'fails, ends'],
  [/\bon (?:its|their) way\b|\bwhile (?:it|they) pass(?:es)?\b/, 'during the transfer'],
  // Another language's words.
  [/\ball the same\b|\bin vain\b/, 'anyway, without success'],
  [/\bonce more\b|\bthree times in all\b|\bin all, /, 'again, in total'],
  [/\bso many (?:ms|bytes|minutes|seconds)\b/, 'a number of'],
  [/\b(?:the|this|that|those|these) very\b/, 'the same, exactly'],
  [/\bbeside\b/, 'next to, in addition to'],
  [/[,;] too[.,:;)]/, 'also'],
  [/\bas ever\b|\bas a rule\b|\bin one go\b/, 'as usual, usually, together'],
  [/\bas (?:it|they) stands?\b/, 'unchanged'],
  [/\bheld against\b/, 'compared with'],
  [/\btroubles?\b/, 'failure'],
];

/** A document without its generated sections, the messages it quotes, the targets of its links, and the headings that are keys. */
function proseOf(text: string): string {
  const withoutKeys = keys.reduce((rest, key) => rest.replaceAll(key, 'X'), text);
  return withoutKeys
    .replaceAll(/<!-- (\w+): [\s\S]*?<!-- \/\1 -->/g, '')
    .replaceAll(/^>.*$/gm, '')
    .replaceAll(/\]\([^)\s]+\)/g, ']');
}

/** The comments and texts of a source, one paragraph for each, and for each tag of a comment. Quoted code is marked. */
function proseOfSource(source: string): string {
  const file = ts.createSourceFile('source.ts', source, ts.ScriptTarget.Latest, true);
  const found = new Map<number, string>();
  const visit = (node: ts.Node): void => {
    for (const { pos, end } of ts.getLeadingCommentRanges(source, node.getFullStart()) ?? [])
      found.set(pos, source.slice(pos, end).replaceAll(/^\/\*\*?|\*\/$|^\s*(?:\/\/|\*)/gm, ''));
    if (ts.isImportDeclaration(node)) return;
    if (ts.isStringLiteralLike(node)) found.set(node.getStart(), node.text);
    if (ts.isTemplateExpression(node))
      found.set(
        node.getStart(),
        [node.head, ...node.templateSpans.map(({ literal }) => literal)].map(({ text }) => text).join('X'),
      );
    node.forEachChild(visit);
  };
  visit(file);
  // A text in quotes is one of many texts in a line of code, so only sentences are kept.
  const texts = [...found.values()].filter((text) => /\s/.test(text.trim()));
  return texts.map((text) => text.replaceAll(/^ *@/gm, '\n@')).join('\n\n');
}

/** Each banned phrase in a text, with the words around it and what to write instead. */
function bannedIn(text: string): readonly string[] {
  const plain = proseOf(text).replaceAll(/`[^`\n]*`/g, '`code`');
  const oneLine = plain.replaceAll(/\s+(?:[#*|] )?/g, ' ');
  return banned.flatMap(([phrase, instead]) =>
    [...oneLine.matchAll(new RegExp(phrase, 'gi'))].map(({ 0: found, index }) => {
      const around = oneLine.slice(Math.max(0, index - 30), index + found.length + 30);
      return `"${found}" in "…${around}…": write ${instead}`;
    }),
  );
}

/** The sentences with more than `maxWords` words, outside code, tables and headings. */
function longSentences(text: string): readonly string[] {
  const paragraphs = proseOf(text)
    .replaceAll(/^```[\s\S]*?^```$/gm, '\n\n')
    .replaceAll(/^(?:#+ |\|).*$/gm, '\n')
    .replaceAll(/`[^`\n]*`/g, 'code')
    .replaceAll(/^ *(?:[-*]|\d+\.) /gm, '\n')
    .split(/\n\s*\n/);
  return paragraphs
    .flatMap((paragraph) => paragraph.replaceAll(/\s+/g, ' ').split(/(?<=[.!?:][)*"]*) (?=\S)/))
    .filter((sentence) => sentence.split(' ').filter((word) => /\w/.test(word)).length > maxWords);
}

const files = globSync([...rewritten, ...ofActions], { cwd: projectRoot })
  .filter((path) => !generated.includes(path))
  .sort();

describe.each(files)('%s', (path) => {
  const text = readFileSync(join(projectRoot, path), 'utf8');

  test('has no banned phrase', () => {
    expect(bannedIn(text)).toEqual([]);
  });

  if (path.endsWith('.md'))
    test(`has no sentence of more than ${String(maxWords)} words`, () => {
      expect(longSentences(text)).toEqual([]);
    });
});

describe.each(globSync(rewrittenSources, { cwd: projectRoot }).sort())('%s', (path) => {
  const text = proseOfSource(readFileSync(join(projectRoot, path), 'utf8'));

  test('has no banned phrase and no long sentence in its comments and messages', () => {
    expect(bannedIn(text)).toEqual([]);
    expect(longSentences(text)).toEqual([]);
  });
});

test('a banned phrase and a long sentence are found in the comments and texts of a source, but not in its code', () => {
  const sources = [
    '// It is told of it.',
    '/** Waits\n * in vain. */\nf();',
    'f("None of ours.");',
    'f(`${x} of ours`);',
  ];
  for (const source of sources) expect([source, bannedIn(proseOfSource(source))]).not.toEqual([source, []]);
  expect(bannedIn(proseOfSource('const inVain = nobody(ours);'))).toEqual([]);
  expect(longSentences(proseOfSource(`/**\n * ${'so long '.repeat(13)}\n * @returns it\n */\nf();`))).toHaveLength(1);
  expect(
    longSentences(proseOfSource(`/**\n * ${'one two '.repeat(9)}\n * @returns ${'one two '.repeat(9)}\n */\nf();`)),
  ).toEqual([]);
});

test('the lists contain only files and headings that exist', () => {
  for (const pattern of [...rewritten, ...ofActions, ...rewrittenSources])
    expect([pattern, globSync(pattern, { cwd: projectRoot })]).not.toEqual([pattern, []]);
  const all = files.map((path) => readFileSync(join(projectRoot, path), 'utf8')).join('\n');
  for (const key of keys) expect(all).toContain(`## ${key}\n`);
});

test.each([
  'Told of each request that is made again, in one line.',
  'also by an attempt that came to nothing',
  'Names of ours in an engine.',
  'What to say of a wait in vain.',
  'An image on its way past the engine',
  'it gets them all the same.',
  'It is app:latest, too.',
  'nobody could say whether it is right',
  'to trust beside the usual ones',
  "it is root's as a rule",
  "The Dockerfile's own trouble.",
  'Aborted so many ms after another signal.',
  'Whoever may see this machine’s processes can read it there.',
  'It is a name of this step, and goes again.',
  'The step hears of it.',
  'Who the image is gets computed.',
])('"%s" has a banned phrase', (text) => {
  expect(bannedIn(text)).not.toEqual([]);
});

test('a banned phrase is found across a line break and in a comment, but not in code, a quote, a link or a generated section', () => {
  expect(bannedIn('It is loaded all the\nsame.')).toHaveLength(1);
  expect(bannedIn('      # The caller is\n      # told of each retry.\n')).not.toEqual([]);
  expect(
    bannedIn('> It is asked in vain.\n\n`nobody` [x](#whoever)\n<!-- results: x.md -->\nin vain\n<!-- /results -->\n'),
  ).toEqual([]);
});

test('a long sentence is found, but two short ones, a table and code are not', () => {
  const short = `It ${'has words '.repeat(11)}here.`;
  expect(longSentences(`${short} ${short}`)).toEqual([]);
  expect(longSentences(`- ${short.slice(0, -1)}, and\n  ${short}`)).toHaveLength(1);
  expect(longSentences(`| ${short} ${short} |\n\`\`\`\n${short.replaceAll('.', '')} ${short}\n\`\`\`\n`)).toEqual([]);
});
