import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { projectRoot } from '../../dev/action-runner.ts';

// Runs GitHub's reader in a separate Node process, because jest doesn't support how its package imports JSON. It takes a second to
// load, so one process answers all calls.
let reader: ChildProcess;
beforeAll(async () => {
  const script = `import * as grammar from './dev/runner-grammar.ts';
    import * as yaml from './dev/lint-yaml.ts';
    process.on('message', async ([call, args]) => process.send([await { ...grammar, ...yaml }[call](...args)]));
    process.send(['ready']);`;
  reader = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script], {
    cwd: projectRoot,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  await answer();
});
afterAll(async () => {
  const ended = once(reader, 'exit');
  reader.kill();
  await ended;
});

/** Returns the reader's next message. Throws if it exits; its stderr shows the reason. */
async function answer(): Promise<unknown> {
  const ended = new AbortController();
  const end = (code: number | null): void => {
    ended.abort(new Error(`GitHub's reader ended with ${String(code)}`));
  };
  reader.once('exit', end);
  try {
    const [message]: readonly unknown[] = await once(reader, 'message', { signal: ended.signal });
    if (!Array.isArray(message)) throw new Error('unreachable: it sends lists');
    return message[0];
  } finally {
    reader.off('exit', end);
  }
}

const call = (name: string, ...args: readonly unknown[]): Promise<unknown> => {
  reader.send([name, args]);
  return answer();
};
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
  test('with an expression in a description is rejected, as by the runner', async () => {
    expect(await call('actionErrors', action('Such as `${{ needs.build.outputs.digest }}`.'))).toEqual([
      "(Line: 5, Col: 18): Unrecognized named-value: 'needs'",
    ]);
    expect(await call('actionErrors', action('Such as `${{ github.event.number }}`.'))).toEqual([
      "(Line: 5, Col: 18): Unrecognized named-value: 'github'",
    ]);
  });

  test('may have an expression as a default', async () => {
    expect(await call('actionErrors', action('A job.', '${{ github.job }}'))).toEqual([]);
    expect(await call('actionErrors', action('A job.', '${{ needs.build.result }}'))).toHaveLength(1);
  });
});

describe('a workflow', () => {
  test('is rejected without `on`, and with an unknown context', async () => {
    expect(await call('workflowErrors', workflow('      - run: x').replace('on: push\n', ''))).toEqual([
      '(Line: 1, Col: 1): Required property is missing: on',
    ]);
    expect(await call('workflowErrors', workflow('      - run: echo ${{ job_id }}'))).toHaveLength(1);
  });

  test('may need only jobs that it contains, unless it is a part of a workflow', async () => {
    const needs = workflow('      - run: x').replace('    steps:', '    needs: other\n    steps:');
    expect(await call('workflowErrors', needs)).toHaveLength(1);
    expect(await call('workflowErrors', needs, false)).toEqual([]);
  });

  const parallel = workflow(`      - id: load
        uses: a/b@v1
        background: true
      - parallel:
          - run: npm ci
          - run: npm run lint
      - wait: load
`);
  test('with parallel steps is checked with them by GitHub’s reader, and without them by actionlint (B.7)', async () => {
    expect(await call('workflowErrors', parallel)).toEqual([]);
    expect(await call('lintWorkflow', parallel, 'test.yml')).toEqual([]);
    expect(await call('workflowErrors', parallel.replace('background: true', 'background: [1]'))).not.toEqual([]);
  });

  test('keeps the steps of a parallel group, but not steps that only wait', async () => {
    expect(await call('withoutParallelSteps', parallel)).toEqual({
      text: workflow(`      - id: load
        uses: a/b@v1
      - run: npm ci
      - run: npm run lint
`),
      removed: ['background', 'parallel', 'wait'],
    });
    const plain = workflow('      - run: "x"   # as it is\n');
    expect(await call('withoutParallelSteps', plain)).toEqual({ text: plain, removed: [] });
  });
});

test('finds documentation snippets that are invalid in any part of a workflow', async () => {
  const document = (yaml: string): string => `# Title\n\n\`\`\`yaml\n${yaml}\n\`\`\`\n`;
  const complaints = (yaml: string): Promise<unknown> => call('lintSnippets', document(yaml), 'README.md');
  expect(
    await complaints('      - uses: a/b@v1\n        with:\n          one: ${{ needs.build.outputs.one }}'),
  ).toEqual([]);
  expect(await complaints('- uses: a/b@v1\n  wiht:\n    one: 1')).toEqual([
    expect.stringContaining("Unexpected value 'wiht'"),
  ]);
  expect(await complaints('permissions:\n  actions: read')).toEqual([]);
  expect(await complaints('permissions:\n  actions: unknown')).toHaveLength(1);
  expect(await complaints('  one:\n    runs-on: x\n    needs: other\n    steps:\n      - run: x')).toEqual([]);
  expect(await complaints('  one:\n    needs: other\n    steps:\n      - run: x')).toHaveLength(1);
  expect(await complaints('jobs:\n  one:\n    runs-on: x\n    steps:\n      - run: x')).not.toEqual([]);
});

test('every action.yml, workflow and snippet of this repository is valid (B.10)', async () => {
  expect(await call('lintYamlFiles')).toEqual([]);
});
