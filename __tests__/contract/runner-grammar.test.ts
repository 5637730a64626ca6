import { execFileSync } from 'node:child_process';
import { describe, expect, test } from '@jest/globals';
import { projectRoot } from '../../dev/action-runner.ts';

// GitHub's reader is loaded by Node itself: its package imports JSON in a way that jest doesn't take.
const ask = (module: string, call: string, ...args: readonly unknown[]): unknown => {
  const script = `import * as asked from './dev/${module}.ts';
    console.log('answer' + JSON.stringify(await asked.${call}(...${JSON.stringify(args)})));`;
  const said = execFileSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script],
    {
      cwd: projectRoot,
      encoding: 'utf8',
    },
  );
  return JSON.parse(said.slice(said.indexOf('answer') + 'answer'.length));
};
const grammar = (call: string, ...args: readonly unknown[]): unknown => ask('runner-grammar', call, ...args);
const lint = (call: string, ...args: readonly unknown[]): unknown => ask('lint-yaml', call, ...args);

const action = (description: string, value = "''"): string => `name: Test
description: A test.
inputs:
  one:
    description: ${description}
    default: ${value}
runs:
  using: node24
  main: index.js
`;
const workflow = (steps: string): string => `on: push
jobs:
  one:
    runs-on: ubuntu-latest
    steps:
${steps}`;

describe('an action.yml', () => {
  test('whose descriptions hold expressions is refused, as the runner refuses to load it', () => {
    expect(grammar('actionComplaints', action('Such as `${{ needs.build.outputs.digest }}`.'))).toEqual([
      "(Line: 5, Col: 18): Unrecognized named-value: 'needs'",
    ]);
    expect(grammar('actionComplaints', action('Such as `${{ github.event.number }}`.'))).toEqual([
      "(Line: 5, Col: 18): Unrecognized named-value: 'github'",
    ]);
  });

  test('may have an expression as a default', () => {
    expect(grammar('actionComplaints', action('A job.', '${{ github.job }}'))).toEqual([]);
    expect(grammar('actionComplaints', action('A job.', '${{ needs.build.result }}'))).toHaveLength(1);
  });
});

describe('a workflow', () => {
  test('is refused without what starts it, and with a context that is not there', () => {
    expect(grammar('workflowComplaints', workflow('      - run: x').replace('on: push\n', ''))).toEqual([
      '(Line: 1, Col: 1): Required property is missing: on',
    ]);
    expect(grammar('workflowComplaints', workflow('      - run: echo ${{ job_id }}'))).toHaveLength(1);
  });

  test('may need only jobs that it has, unless it is a part of one', () => {
    const needs = workflow('      - run: x').replace('    steps:', '    needs: other\n    steps:');
    expect(grammar('workflowComplaints', needs)).toHaveLength(1);
    expect(grammar('workflowComplaints', needs, false)).toEqual([]);
  });

  const parallel = workflow(`      - id: load
        uses: a/b@v1
        background: true
      - parallel:
          - run: npm ci
          - run: npm run lint
      - wait: load
`);
  test('B.7: with parallel steps is read with them by GitHub’s reader, and without them by actionlint', () => {
    expect(grammar('workflowComplaints', parallel)).toEqual([]);
    expect(lint('lintWorkflow', parallel, 'test.yml')).toEqual([]);
    expect(grammar('workflowComplaints', parallel.replace('background: true', 'background: [1]'))).not.toEqual([]);
  });

  test('keeps the steps of a parallel group, and loses those that only wait', () => {
    expect(lint('withoutParallelSteps', parallel)).toEqual({
      text: workflow(`      - id: load
        uses: a/b@v1
      - run: npm ci
      - run: npm run lint
`),
      taken: ['background', 'parallel', 'wait'],
    });
    const plain = workflow('      - run: "x"   # as it is\n');
    expect(lint('withoutParallelSteps', plain)).toEqual({ text: plain, taken: [] });
  });
});

test('a snippet of the documentation that could not be pasted is found, whatever part of a workflow it shows', () => {
  const document = (yaml: string): string => `# Title\n\n\`\`\`yaml\n${yaml}\n\`\`\`\n`;
  const complaints = (yaml: string): unknown => lint('lintSnippets', document(yaml), 'README.md');
  expect(complaints('      - uses: a/b@v1\n        with:\n          one: ${{ needs.build.outputs.one }}')).toEqual([]);
  expect(complaints('- uses: a/b@v1\n  wiht:\n    one: 1')).toEqual([
    expect.stringContaining("Unexpected value 'wiht'"),
  ]);
  expect(complaints('permissions:\n  actions: read')).toEqual([]);
  expect(complaints('permissions:\n  actions: nobody')).toHaveLength(1);
  expect(complaints('  one:\n    runs-on: x\n    needs: other\n    steps:\n      - run: x')).toEqual([]);
  expect(complaints('  one:\n    needs: other\n    steps:\n      - run: x')).toHaveLength(1);
  expect(complaints('jobs:\n  one:\n    runs-on: x\n    steps:\n      - run: x')).not.toEqual([]);
});

test('B.10: every action.yml, every workflow and every snippet of this repository is read without a complaint', () => {
  expect(lint('lintYamlFiles')).toEqual([]);
});
