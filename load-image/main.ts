import { loadOutputs } from './outputs.ts';
import { readImagesInputs } from './inputs.ts';
import { planImages } from './plan/plan.ts';
import { loadImages } from './load-images.ts';
import { imagesSummary } from './summary.ts';
import { waitingReader } from './wait.ts';
import { otherRunStore } from '../shared/artifacts/service/other-run-store.ts';
import { runStore } from '../shared/artifacts/service/run-store.ts';
import { runJobs } from '../shared/artifacts/service/workflow-runs.ts';
import type { ArtifactReader, ArtifactStore } from '../shared/artifacts/store.ts';
import { PartFigures } from '../shared/artifacts/blob/slow-parts.ts';
import { timeline } from '../shared/base/timeline.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { containerEngine } from '../shared/docker/container-engine.ts';
import { holdersOf } from '../shared/docker/holders.ts';
import { registryCommands } from '../shared/docker/registry-commands.ts';
import { actionInputs } from '../shared/runner/inputs.ts';
import { addSummary, maskSecret, setOutputs } from '../shared/runner/outputs.ts';
import { run } from '../shared/runner/run.ts';

await run('load-image', async ({ context, log, signal, limit }) => {
  const inputs = actionInputs();
  const limitMinutes = limit(inputs);
  const given = readImagesInputs(inputs);
  const plan = planImages(given, { ownRepository: context.producer.repository, limitMinutes });
  const { other, wait } = plan;
  const times = timeline();
  const engine = await containerEngine(plan.each.engine, context, signal);
  const holders = await holdersOf(plan.each.into, engine, signal);
  const figures = new PartFigures();
  const tools = { ...context, log, maskSecret, signal, figures };
  const ownStore = (): ArtifactStore => runStore(tools);
  await using found = other === undefined ? ownStore() : otherRunStore({ ...tools, ...other });
  const { githubToken: token = '' } = given;
  const reads = { ...context, ...context.producer, token, onRetry: log.info, signal };
  await using jobs = wait === undefined || token === '' ? undefined : runJobs(reads);
  const waiting = { ...context, ...context.producer, jobs, log, timeline: times, signal };
  const store: ArtifactReader = wait === undefined ? found : waitingReader(found, wait, waiting);
  const result = await loadImages(plan, {
    engine,
    holders,
    signal,
    registry: registryCommands(dockerCli(signal), { warning: log.warning, signal }),
    store,
    ownStore,
    log,
    timeline: times,
    runAttempt: context.producer.runAttempt,
  });
  setOutputs(loadOutputs(result, { id: context.producer.runId, url: context.runUrl }));
  await addSummary(imagesSummary(result, times), figures.describe());
});
