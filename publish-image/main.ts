import { readPublishInputs } from './inputs.ts';
import { publishOutputs } from './outputs.ts';
import { planPublish } from './plan/plan.ts';
import { publishImage } from './publish-image.ts';
import type { PublishResult } from './result.ts';
import { publishSummary } from './summary.ts';
import { otherRunStore } from '../shared/artifacts/service/other-run-store.ts';
import { runStore } from '../shared/artifacts/service/run-store.ts';
import { timeline } from '../shared/base/timeline.ts';
import { askHelper } from '../shared/docker/credential-helper.ts';
import { actionInputs } from '../shared/runner/inputs.ts';
import { addSummary, maskSecret, setOutputs } from '../shared/runner/outputs.ts';
import { registries } from '../shared/registry/registries.ts';
import { run } from '../shared/runner/run.ts';

await run('publish-image', async ({ context, log, signal, limit }) => {
  const inputs = actionInputs();
  limit(inputs);
  const { repository: ownRepository } = context.producer;
  const plan = planPublish(readPublishInputs(inputs), { ...context, ownRepository });
  plan.notices.forEach(log.notice);
  const common = { ...context, log, maskSecret, signal };
  await using store = plan.other === undefined ? runStore(common) : otherRunStore({ ...common, ...plan.other });
  await using registry = registries({ ...common, ...plan, askHelper });
  const times = timeline();
  const { runAttempt } = context.producer;
  const onPartial = (partial: PublishResult): void => {
    setOutputs(publishOutputs(partial));
  };
  const tools = { store, log, runAttempt, timeline: times, registry: registry.of, onPartial };
  const result = await publishImage(plan, tools);
  setOutputs(publishOutputs(result));
  await addSummary(publishSummary(result, times.spans()));
});
