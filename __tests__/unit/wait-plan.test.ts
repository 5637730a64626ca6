import { describe, expect, test } from '@jest/globals';
import { loadInputs } from '../fixtures/load-inputs.ts';
import type { ImagesPlan } from '../../load-image/plan/images-plan.ts';
import { planEach, planLoad } from '../../load-image/plan/plan.ts';
import { planWait } from '../../load-image/plan/wait-plan.ts';

const one: ImagesPlan = {
  kind: 'one',
  wanted: ['docker-image'],
  each: planLoad(loadInputs),
  digests: undefined,
  remove: false,
};
const several: ImagesPlan = {
  kind: 'several',
  wanted: ['a', 'b-*'],
  each: planEach(loadInputs),
  digests: undefined,
  remove: false,
};

describe('planWait', () => {
  test('there is no wait without `wait-minutes`', () => {
    expect(planWait({ waitMinutes: 0, waitForJob: undefined }, one, true, 30)).toBeUndefined();
  });

  test('the wait is for one or several artifacts, and shorter than the step’s timeout (B.3)', () => {
    expect(planWait({ waitMinutes: 29, waitForJob: 'build' }, one, false, 30)).toEqual({
      wanted: ['docker-image'],
      minutes: 29,
      job: 'build',
    });
    expect(planWait({ waitMinutes: 1, waitForJob: undefined }, several, false, 30)).toEqual({
      wanted: ['a', 'b-*'],
      minutes: 1,
      job: undefined,
    });
  });

  test.each([
    [{ waitMinutes: 0, waitForJob: 'build' }, false, '`wait-for-job` (build) is given', 'Set `wait-minutes`'],
    [{ waitMinutes: 1, waitForJob: undefined }, true, 'the artifact is of another run', 'Leave `wait-minutes` out'],
    [
      { waitMinutes: 30, waitForJob: undefined },
      false,
      '`wait-minutes` is 30, but the step is ended after 30 minutes (`timeout-minutes`).',
      'Raise `timeout-minutes`',
    ],
  ])('%j, of another run: %j, is refused', (inputs, isOtherRun, message, hint) => {
    expect(() => planWait(inputs, one, isOtherRun, 30)).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining(message),
        hint: expect.stringContaining(hint),
      }),
    );
  });
});
