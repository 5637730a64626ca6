import { planExport } from '../export-image/plan/plan.ts';
import { requirePushed } from '../export-image/push.ts';
import { handover } from './handover.ts';
import { readHandoverInputs } from './inputs.ts';
import { handoverOutputs } from './outputs.ts';
import { handoverSummary } from './summary.ts';
import { planLoad } from '../load-image/plan/plan.ts';
import { runStore } from '../shared/artifacts/service/run-store.ts';
import { timeline } from '../shared/base/timeline.ts';
import { dockerBuildx } from '../shared/docker/buildx.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { containerEngine } from '../shared/docker/container-engine.ts';
import { dockerRegistry } from '../shared/docker/registry.ts';
import { actionInputs } from '../shared/runner/inputs.ts';
import { addSummary, maskSecret, setOutputs } from '../shared/runner/outputs.ts';
import { run } from '../shared/runner/run.ts';
import { readTimeLimit } from '../shared/runner/time-limit.ts';

await run('image-handover', async ({ context, log, signal, limit }) => {
  const minutes = readTimeLimit(actionInputs());
  limit(minutes);
  const inputs = readHandoverInputs(actionInputs());
  const plans = { export: planExport(inputs.export, context), load: planLoad(inputs.load) };
  const cli = dockerCli(signal);
  const times = timeline();
  await using store = runStore({ ...context, log, maskSecret, signal });
  const result = await handover(plans, {
    engine: await containerEngine(plans.load.engine, context, signal),
    buildx: dockerBuildx(cli, minutes),
    registry: dockerRegistry(cli, { pauseMs: inputs.export.push.retrySeconds * 1000, warning: log.warning, signal }),
    signal,
    cacheService: { isThere: context.hasCacheService, mode: context.cacheMode },
    store,
    log,
    timeline: times,
    producer: { ...context.producer, jobKey: `${context.jobPath}/${plans.export.jobKey}` },
    runAttempt: context.producer.runAttempt,
    tempRoot: context.tempRoot,
    onSteps: () => undefined,
  });
  setOutputs(handoverOutputs(result));
  await addSummary(handoverSummary(result, plans.load.artifactName, times));
  if (result.kind !== 'loaded') requirePushed(plans.export.push, result.exported.push);
});
