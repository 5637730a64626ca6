import { actionInputs } from '../shared/action/inputs.ts';
import { setOutputs } from '../shared/action/outputs.ts';
import { run } from '../shared/action/run.ts';
import { maskSecret } from '../shared/action/secrets.ts';
import { addSummary } from '../shared/action/summary.ts';
import { runStore } from '../shared/artifacts/run-store.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { dockerEngine } from '../shared/docker/engine.ts';
import { timeline } from '../shared/timeline.ts';
import { readImagesInputs } from './images-inputs.ts';
import { planImages } from './images-plan.ts';
import { imagesSummary } from './images-summary.ts';
import { loadImages } from './load-images.ts';
import { loadOutputs } from './outputs.ts';

await run('load-image', async ({ context, log, signal }) => {
  const plan = planImages(readImagesInputs(actionInputs()), context.maxRetentionDays);
  const times = timeline();
  await using store = runStore({ ...context, onRetry: log.info, onNotice: log.notice, maskSecret, signal });
  const result = await loadImages(plan, {
    engine: dockerEngine(dockerCli(signal)),
    store,
    log,
    timeline: times,
    runAttempt: context.producer.runAttempt,
  });
  setOutputs(loadOutputs(result));
  await addSummary(imagesSummary(result, times.spans()));
});
