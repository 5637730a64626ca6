import { actionInputs } from '../shared/action/inputs.ts';
import { setOutputs } from '../shared/action/outputs.ts';
import { run } from '../shared/action/run.ts';
import { maskSecret } from '../shared/action/secrets.ts';
import { addSummary } from '../shared/action/summary.ts';
import { runStore } from '../shared/artifacts/run-store.ts';
import { dockerCli } from '../shared/docker/cli.ts';
import { dockerEngine } from '../shared/docker/engine.ts';
import { dockerRegistry } from '../shared/docker/registry.ts';
import { timeline } from '../shared/timeline.ts';
import { readLoadInputs } from './inputs.ts';
import { loadFrom } from './load-from.ts';
import { loadOutputs } from './outputs.ts';
import { planLoad } from './plan.ts';
import { loadSummary } from './summary.ts';

await run('load-image', async ({ context, log, signal }) => {
  const inputs = readLoadInputs(actionInputs());
  const plan = planLoad(inputs);
  const cli = dockerCli(signal);
  const times = timeline();
  await using store = runStore({ ...context, onRetry: log.info, onNotice: log.notice, maskSecret, signal });
  const result = await loadFrom(plan, {
    engine: dockerEngine(cli),
    registry: dockerRegistry(cli, { pauseMs: inputs.registryRetrySeconds * 1000, warning: log.warning, signal }),
    store,
    log,
    timeline: times,
    runAttempt: context.producer.runAttempt,
  });
  setOutputs(loadOutputs(result));
  await addSummary(loadSummary(result, times.spans()));
});
