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
import { loadOrPull } from './fallback-image.ts';
import { readLoadInputs } from './inputs.ts';
import { loadOutputs } from './outputs.ts';
import { planLoad } from './plan.ts';
import { readRunInputs } from './run-inputs.ts';
import { planRun } from './run-plan.ts';
import { loadSummary } from './summary.ts';

await run('load-image', async ({ context, log, signal, limit }) => {
  const inputs = actionInputs();
  limit(readTimeLimit(inputs));
  const loadInputs = readLoadInputs(inputs);
  const plan = planLoad(loadInputs);
  const { other, fallback } = planRun(readRunInputs(inputs), plan, context.producer.repository);
  const cli = dockerCli(signal);
  const times = timeline();
  await using store =
    other === undefined
      ? runStore({ ...context, onRetry: log.info, onNotice: log.notice, maskSecret, signal })
      : otherRunStore({ ...context, ...other, say: log.info, maskSecret, signal });
  const result = await loadOrPull(plan, fallback, {
    engine: containerEngine(plan.engine, context.tempRoot, signal),
    registry: dockerRegistry(cli, { pauseMs: loadInputs.registryRetrySeconds * 1000, warning: log.warning, signal }),
    store,
    log,
    timeline: times,
    runAttempt: context.producer.runAttempt,
  });
  setOutputs(loadOutputs(result, { id: context.producer.runId, url: context.runUrl }));
  await addSummary(loadSummary(result, times.spans()));
});
