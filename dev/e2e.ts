import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { scenarios } from '../__tests__/e2e/scenarios.ts';
import { play, standInTable } from '../__tests__/e2e/stage.ts';
import { startWorld } from '../__tests__/e2e/world.ts';
import { projectRoot } from './action-runner.ts';
import { build } from './build.ts';
import { whyNoGo } from './go-parts.ts';

// `npm run e2e` plays every scenario in a workflow runner that nobody here wrote; `npm run e2e -- matrix` those whose names match.

const filters = process.argv.slice(2);
const chosen = scenarios.filter(({ name }) => filters.length === 0 || filters.some((filter) => name.includes(filter)));
if (chosen.length === 0)
  fail(`No scenario matches ${filters.join(', ')}. There are: ${scenarios.map(({ name }) => name).join(', ')}.`);
const missing = whyNoGo();
if (missing !== undefined) console.log(missing);

title('Building dist/ from source, and the parts that come as source');
build();
const logs = join(projectRoot, 'build', 'e2e');
rmSync(logs, { recursive: true, force: true });
mkdirSync(logs, { recursive: true });
title('Actions that can’t be fetched here, and what stands in for them');
for (const [name, description] of standInTable()) console.log(`${name}: ${description}`);
const world = await startWorld();
const failures: string[] = [];
try {
  for (const scenario of chosen) {
    title(scenario.title);
    const began = performance.now();
    const error = await play(scenario, world, logs).then(() => undefined, String);
    const seconds = `${((performance.now() - began) / 1000).toFixed(0)} s`;
    console.log(error === undefined ? `✓ ${scenario.name} (${seconds})` : `✗ ${scenario.name} (${seconds}): ${error}`);
    if (error !== undefined) failures.push(scenario.name);
  }
} finally {
  await world.stop();
}
process.exit(failures.length > 0 ? 1 : 0);

function title(text: string): void {
  console.log(`\n━━ ${text}`);
}

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}
