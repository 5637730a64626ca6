import { actionInputs } from '../shared/action/inputs.ts';
import { setOutputs } from '../shared/action/outputs.ts';
import { run } from '../shared/action/run.ts';
import { maskSecret } from '../shared/action/secrets.ts';
import { addSummary } from '../shared/action/summary.ts';
import { runStore } from '../shared/artifacts/run-store.ts';
import { containerEngine } from '../shared/docker/container-engine.ts';
import { timeline } from '../shared/timeline.ts';
import { readLoadInputs } from './inputs.ts';
import { loadImage } from './load-image.ts';
import { loadOutputs } from './outputs.ts';
import { planLoad } from './plan.ts';
import { loadSummary } from './summary.ts';

await run('load-image', async ({ context, log, signal }) => {
  const plan = planLoad(readLoadInputs(actionInputs()));
  const times = timeline();
  await using store = runStore({ ...context, onRetry: log.info, onNotice: log.notice, maskSecret, signal });
  const result = await loadImage(plan, {
    engine: containerEngine(plan.engine, context.tempRoot, signal),
    store,
    log,
    timeline: times,
    runAttempt: context.producer.runAttempt,
  });
  setOutputs(loadOutputs(result));
  await addSummary(loadSummary(result, times.spans()));
});
