import { describe, expect, test } from '@jest/globals';
import { imagesInputs } from '../fixtures/load-inputs.ts';
import type { ImagesInputs } from '../../load-image/inputs.ts';
import { planImages, type WaitPlan } from '../../load-image/plan/plan.ts';

const plan = (change: Partial<ImagesInputs>): WaitPlan | undefined =>
  planImages({ ...imagesInputs, ...change }, { ownRepository: 'org/charon', limitMinutes: 30 }).wait;

describe('the plan of a wait', () => {
  test('there is no wait without `wait-minutes`', () => {
    expect(plan({ runId: '7' })).toBeUndefined();
  });

  test('the wait is for one or several artifacts, and shorter than the step’s timeout (B.3)', () => {
    expect(plan({ waitMinutes: 29, waitForJob: 'build' })).toEqual({
      wanted: ['docker-image'],
      minutes: 29,
      job: 'build',
    });
    expect(plan({ waitMinutes: 1, artifactNames: ['a', 'b-*'] })).toEqual({
      wanted: ['a', 'b-*'],
      minutes: 1,
      job: undefined,
    });
  });

  test.each<[Partial<ImagesInputs>, string, string]>([
    [{ waitForJob: 'build' }, '`wait-for-job` (build) is given', 'Set `wait-minutes`'],
    [{ waitMinutes: 1, runId: '7' }, 'the artifact is from another run', 'Leave `wait-minutes` out'],
    [
      { waitMinutes: 30 },
      '`wait-minutes` is 30, but the step ends after 30 minutes (`timeout-minutes`).',
      'Raise `timeout-minutes`',
    ],
  ])('%j is refused', (inputs, message, hint) => {
    expect(() => plan(inputs)).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining(message),
        hint: expect.stringContaining(hint),
      }),
    );
  });
});
