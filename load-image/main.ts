import { actionInputs } from '../shared/action/inputs.ts';
import { setOutputs } from '../shared/action/outputs.ts';
import { run } from '../shared/action/run.ts';
import { maskSecret } from '../shared/action/secrets.ts';
import { addSummary } from '../shared/action/summary.ts';
import { readTimeLimit } from '../shared/action/time-limit.ts';
import { otherRunStore } from '../shared/artifacts/other-run-store.ts';
import { runStore } from '../shared/artifacts/run-store.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { containerEngine } from '../shared/docker/container-engine.ts';
import { dockerRegistry } from '../shared/docker/registry.ts';
import { timeline } from '../shared/timeline.ts';
import { loadOutputs } from './outputs.ts';
import { readRunInputs } from './run-inputs.ts';
import { planRun } from './run-plan.ts';
import { readImagesInputs } from './images-inputs.ts';
import { planImages } from './images-plan.ts';
import { imagesSummary } from './images-summary.ts';
import { loadImages } from './load-images.ts';
import type { ArtifactStore } from '../shared/artifacts/store.ts';

await run('load-image', async ({ context, log, signal, limit }) => {
  const inputs = actionInputs();
  limit(readTimeLimit(inputs));
  const given = readImagesInputs(inputs);
  const plan = planImages(given, context.maxRetentionDays);
  const { other, fallback } = planRun(readRunInputs(inputs), plan, context.producer.repository);
  const { engine } = plan.kind === 'one' ? plan.plan : plan.each;
  const times = timeline();
  const ownStore = (): ArtifactStore =>
    runStore({ ...context, onRetry: log.info, progress: log.progress, onNotice: log.notice, maskSecret, signal });
  await using store =
    other === undefined
      ? ownStore()
      : otherRunStore({ ...context, ...other, say: log.info, progress: log.progress, maskSecret, signal });
  const pauseMs = given.registryRetrySeconds * 1000;
  const result = await loadImages(plan, fallback, {
    engine: containerEngine(engine, context.tempRoot, signal),
    registry: dockerRegistry(dockerCli(signal), { pauseMs, warning: log.warning, signal }),
    store,
    ownStore,
    log,
    timeline: times,
    runAttempt: context.producer.runAttempt,
  });
  setOutputs(loadOutputs(result, { id: context.producer.runId, url: context.runUrl }));
  await addSummary(imagesSummary(result, times.spans()));
});
