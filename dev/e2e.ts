import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { notRunHere, scenarios, unaccounted } from '../__tests__/e2e/scenarios.ts';
import { runScenario, standInTable } from '../__tests__/e2e/stage.ts';
import { startWorld } from '../__tests__/e2e/world.ts';
import { messageOf } from '../shared/base/errors.ts';
import { projectRoot } from './action-runner.ts';
import { build } from './build.ts';
import { goPart, describeMissingGo } from './go-parts.ts';

// `npm run e2e` runs every scenario in act, a real workflow runner; `npm run e2e -- matrix` runs those with matching names.
// Scenarios on a real Gitea run only with `npm run e2e -- gitea`, which builds Gitea the first time.

const filters = process.argv.slice(2);
const isNamed = (name: string): boolean => filters.length === 0 || filters.some((filter) => name.includes(filter));
const chosen = scenarios.filter(
  ({ name, host }) => isNamed(name) && (host === undefined || filters.some((filter) => filter.startsWith(host))),
);
if (chosen.length === 0)
  fail(`No scenario matches ${filters.join(', ')}. Available: ${scenarios.map(({ name }) => name).join(', ')}.`);
title('Building dist/ and the Go parts');
await build();
const missingGo = describeMissingGo();
if (missingGo !== undefined) console.log(`${missingGo}; the distribution’s packages may have it.`);
const onGitea = chosen.some(({ host }) => host === 'gitea') ? (['gitea'] as const) : [];
for (const part of ['act', 'buildkit', 'dockerd', 'runc', ...onGitea] as const)
  await goPart(part).catch((error: unknown) => fail(`Missing: ${part}, which is built with Go: ${messageOf(error)}`));
const logs = join(projectRoot, 'build', 'e2e');
rmSync(logs, { recursive: true, force: true });
mkdirSync(logs, { recursive: true });
title('Replacements of actions that can’t be fetched here');
for (const [name, description] of standInTable()) console.log(`${name}: ${description}`);
title('Starting two engines with BuildKit’s image');
const world = await startWorld().catch((error: unknown) =>
  fail(error instanceof Error ? error.message : String(error)),
);
const failures: string[] = [];
try {
  for (const scenario of chosen) {
    title(scenario.title);
    const startedAt = performance.now();
    const error = await runScenario(scenario, world, logs).then(() => undefined, String);
    const label = `${scenario.name} (${((performance.now() - startedAt) / 1000).toFixed(0)} s)`;
    if (error === undefined) console.log(`✓ ${label}`);
    else {
      console.log(`✗ ${label}: ${error}\nWorkflow logs: ${join(logs, `${scenario.name}-*.log`)}`);
      failures.push(scenario.name);
    }
  }
} finally {
  await world.stop();
}
title('Not run here');
for (const [what, why] of Object.entries(notRunHere)) console.log(`${what}: ${why}`);
for (const what of unaccounted()) {
  console.log(`✗ ${what}: no scenario runs it, and __tests__/e2e/scenarios.ts gives no reason`);
  failures.push(what);
}
if (failures.length > 0) console.log(`\nFailed: ${failures.join(', ')}`);
const failed = failures.length;
console.log(`\n${String(chosen.length - Math.min(failed, chosen.length))} passed, ${String(failed)} failed, 0 skipped`);
process.exit(failures.length > 0 ? 1 : 0);

function title(text: string): void {
  console.log(`\n━━ ${text}`);
}

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}
