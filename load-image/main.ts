import { loadOutputs } from './outputs.ts';
import { readImagesInputs, readRunInputs } from './own-inputs.ts';
import { planImages } from './plan/images-plan.ts';
import { planRun } from './plan/run-plan.ts';
import { loadImages } from './several.ts';
import { imagesSummary } from './summary.ts';
import { otherRunStore } from '../shared/artifacts/other-run-store.ts';
import { runStore } from '../shared/artifacts/run-store.ts';
import type { ArtifactStore } from '../shared/artifacts/store.ts';
import { timeline } from '../shared/base/timeline.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { containerEngine } from '../shared/docker/container-engine.ts';
import { dockerRegistry } from '../shared/docker/registry.ts';
import { actionInputs } from '../shared/runner/inputs.ts';
import { addSummary, maskSecret, setOutputs } from '../shared/runner/outputs.ts';
import { run } from '../shared/runner/run.ts';
import { readTimeLimit } from '../shared/runner/time-limit.ts';

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
