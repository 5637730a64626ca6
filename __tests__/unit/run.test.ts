import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import { projectRoot } from '../../dev/action-runner.ts';

describe('a step that is cancelled', () => {
  test.each([['SIGINT'], ['SIGTERM']] as const)(
    'ends 7 s after %s, even if some of its work is stuck',
    async (signal) => {
      // The child's clock is frozen, and the test moves it: the runner sends its second signal after 7.5 s.
      const script =
        "import { mock } from 'node:test';" +
        "import { run } from './shared/runner/run.ts';" +
        'setInterval(() => undefined, 1000);' +
        "mock.timers.enable({ apis: ['setTimeout'] });" +
        "const started = run('a-step', () => { console.log('begun'); return new Promise(() => undefined); });" +
        `process.on('${signal}', () => { mock.timers.tick(6999); setImmediate(() => { console.log('still there'); mock.timers.tick(1); }); });` +
        'await started;';
      const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
        cwd: projectRoot,
        env: { PATH: process.env['PATH'] },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const log = text(child.stdout);
      await once(child.stdout, 'data');
      child.kill(signal);
      const [code, killed]: readonly unknown[] = await once(child, 'exit');
      expect([code, killed]).toEqual([1, null]);
      expect(await log).toMatch(/still there[^]*a-step%3A cancelled/);
      expect(await log).toContain(`The step was cancelled (${signal}).`);
    },
  );
});

test('the first failure is reported, not the later failure of its cleanup', async () => {
  const script =
    "import { run } from './shared/runner/run.ts';" +
    "import { HandoverError } from './shared/base/errors.ts';" +
    "const broken = { [Symbol.asyncDispose]: () => Promise.reject(new Error('the clean-up broke')) };" +
    "await run('a-step', async () => { await using first = broken; await using second = broken;" +
    " throw new HandoverError('load-failed', 'the engine went away', 'Look at it.'); });";
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: projectRoot,
    env: { PATH: process.env['PATH'] },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const log = await text(child.stdout);
  expect(log).toContain('::error title=a-step%3A load-failed::the engine went away');
  expect(log.match(/^Cleanup also failed: the clean-up broke$/gm)).toHaveLength(2);
  expect(log).not.toContain('unexpected error');
});
