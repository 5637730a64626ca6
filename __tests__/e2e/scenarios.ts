import { recipeIds } from './recipes.ts';
import { firstWorkflow } from './scenarios/first-workflow.ts';
import { gate } from './scenarios/gate.ts';
import { joined } from './scenarios/joined.ts';
import { mainBuild } from './scenarios/main-build.ts';
import { manyImages } from './scenarios/many-images.ts';
import { matrix } from './scenarios/matrix.ts';
import { officialClient } from './scenarios/official-client.ts';
import { otherRun } from './scenarios/other-run.ts';
import { push } from './scenarios/push.ts';
import { rerun } from './scenarios/rerun.ts';
import { handovers } from './scenarios/ways.ts';
import type { Scenario } from './stage.ts';

export const scenarios: readonly Scenario[] = [
  firstWorkflow,
  mainBuild,
  matrix,
  joined,
  manyImages,
  gate,
  rerun,
  push,
  handovers,
  officialClient,
  otherRun,
];

/** What doesn't run here, and why: recipes of the documentation by `file#heading`, and what no recipe shows. */
export const notRunHere: Readonly<Record<string, string>> = {};

/** Recipes of the documentation that neither a scenario runs nor the list above names, and entries that name none. */
export function unaccounted(): readonly string[] {
  const known = recipeIds();
  const accounted = new Set([...scenarios.flatMap(({ recipes }) => recipes), ...Object.keys(notRunHere)]);
  const stale = [...accounted].filter((id) => id.includes('#') && !known.includes(id));
  return [...known.filter((id) => !accounted.has(id)), ...stale.map((id) => `${id} (there is no such recipe)`)];
}
