import { join } from 'node:path';
import { planExport } from '../export-image/plan/plan.ts';
import { requirePushed } from '../export-image/push.ts';
import { loadOrExport } from './joined.ts';
import { readJoinedInputs } from './inputs.ts';
import { joinedOutputs } from './outputs.ts';
import { joinedSummary } from './summary.ts';
import { planLoad } from '../load-image/plan/plan.ts';
import { runStore } from '../shared/artifacts/service/run-store.ts';
import { PartFigures } from '../shared/artifacts/blob/slow-parts.ts';
import { timeline } from '../shared/base/timeline.ts';
import { actionsCache } from '../shared/cache/actions-cache.ts';
import { makeTempDir } from '../shared/bytes/files.ts';
import { Buildx } from '../shared/docker/buildx.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { containerEngine } from '../shared/docker/container-engine.ts';
import { registryCommands } from '../shared/docker/registry-commands.ts';
import { actionInputs } from '../shared/runner/inputs.ts';
import { addSummary, maskSecret, setOutputs } from '../shared/runner/outputs.ts';
import { run } from '../shared/runner/run.ts';

await run('image-handover', async ({ context, log, signal, limit }) => {
  const inputs = actionInputs();
  const minutes = limit(inputs);
  await using temp = await makeTempDir(context.tempRoot);
  const given = readJoinedInputs(inputs, join(temp.path, 'charon.tar'));
  const plans = { export: planExport(given.export, context), load: planLoad(given.load) };
  const cli = dockerCli(signal);
  const times = timeline();
  const figures = new PartFigures();
  await using store = runStore({ ...context, log, maskSecret, signal, figures });
  await using cache = actionsCache({ ...context, maskSecret, onRetry: log.info, stepMinutes: minutes, signal });
  const engine = await containerEngine(plans.load.engine, context, signal);
  const result = await loadOrExport(plans, {
    engine,
    holders: [{ engine, node: undefined }],
    buildx: new Buildx(cli, minutes),
    registry: registryCommands(cli, { warning: log.warning, signal }),
    signal,
    cacheService: { isThere: context.hasCacheService, mode: context.cacheMode },
    actionsCache: context.usesCacheV2 ? cache : undefined,
    store,
    log,
    timeline: times,
    producer: { ...context.producer, jobKey: `${context.jobPath}/${plans.export.jobKey}` },
    runAttempt: context.producer.runAttempt,
    tempRoot: context.tempRoot,
    onSteps: () => undefined,
  });
  setOutputs(joinedOutputs(result));
  await addSummary(joinedSummary(result, plans.load.artifactName, times), figures.describe());
  if (result.exported !== undefined) requirePushed(plans.export.push, result.exported.push);
});
