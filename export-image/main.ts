import { exportImage } from './export-image.ts';
import { readExportInputs } from './inputs.ts';
import { exportOutputs, failedOutputs, stepOutputs } from './outputs.ts';
import { planExport } from './plan/plan.ts';
import { requirePushed } from './push.ts';
import { exportSummary } from './summary.ts';
import { runStore } from '../shared/artifacts/service/run-store.ts';
import { PartFigures } from '../shared/artifacts/blob/slow-parts.ts';
import { timeline } from '../shared/base/timeline.ts';
import { actionsCache } from '../shared/cache/actions-cache.ts';
import { Buildx } from '../shared/docker/buildx.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { containerEngine } from '../shared/docker/container-engine.ts';
import { registryCommands } from '../shared/docker/registry-commands.ts';
import { actionInputs } from '../shared/runner/inputs.ts';
import { addSummary, maskSecret, setOutputs } from '../shared/runner/outputs.ts';
import { run } from '../shared/runner/run.ts';

await run('export-image', async ({ context, log, signal, limit }) => {
  setOutputs(failedOutputs);
  const inputs = actionInputs();
  const minutes = limit(inputs);
  const plan = planExport(readExportInputs(inputs), context);
  const cli = dockerCli(signal);
  const times = timeline();
  const figures = new PartFigures();
  await using store = runStore({ ...context, log, maskSecret, signal, figures });
  await using cache = actionsCache({ ...context, maskSecret, onRetry: log.info, stepMinutes: minutes, signal });
  const result = await exportImage(plan, {
    engine: await containerEngine(plan.engine, context, signal),
    buildx: new Buildx(cli, minutes),
    registry: registryCommands(cli, { warning: log.warning, signal }),
    cacheService: { isThere: context.hasCacheService, mode: context.cacheMode },
    actionsCache: context.usesCacheV2 ? cache : undefined,
    store,
    log,
    signal,
    timeline: times,
    producer: { ...context.producer, jobKey: `${context.jobPath}/${plan.jobKey}` },
    tempRoot: context.tempRoot,
    onSteps: (steps) => setOutputs(stepOutputs(steps)),
    onHandedOver: (handedOver) => {
      setOutputs(exportOutputs(handedOver, plan, context.runUrl));
    },
  });
  await addSummary(exportSummary(result, times.spans()), figures.describe());
  requirePushed(plan.push, result.push);
});
