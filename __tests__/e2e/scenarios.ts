import { recipeIds } from './recipes.ts';
import { earlyAndBase } from './scenarios/early.ts';
import { examples } from './scenarios/examples.ts';
import { firstWorkflow } from './scenarios/first-workflow.ts';
import { gate } from './scenarios/gate.ts';
import { joined } from './scenarios/joined.ts';
import { loads } from './scenarios/loads.ts';
import { mainBuild } from './scenarios/main-build.ts';
import { lowTrust } from './scenarios/low-trust.ts';
import { manyImages } from './scenarios/many-images.ts';
import { matrix } from './scenarios/matrix.ts';
import { officialClient } from './scenarios/official-client.ts';
import { otherRun } from './scenarios/other-run.ts';
import { publish } from './scenarios/publish.ts';
import { push } from './scenarios/push.ts';
import { rerun } from './scenarios/rerun.ts';
import { handovers } from './scenarios/ways.ts';
import { thirdParty } from './scenarios/third-party.ts';
import type { Scenario } from './stage.ts';

export const scenarios: readonly Scenario[] = [
  firstWorkflow,
  lowTrust,
  mainBuild,
  matrix,
  joined,
  manyImages,
  gate,
  rerun,
  push,
  publish,
  earlyAndBase,
  handovers,
  loads,
  officialClient,
  otherRun,
  thirdParty,
  ...examples,
];

/** What doesn't run here, and why: recipes of the documentation by `file#heading`, and what no recipe shows. */
export const notRunHere: Readonly<Record<string, string>> = {
  'docs/recipes.md#Use podman': 'it takes podman with a storage of its own: __tests__/integration/podman.test.ts',
  'docs/recipes.md#Load it straight into kind, k3d or a containerd':
    'kind’s node image can’t be fetched here: __tests__/integration/nodes.test.ts has nodes with a real containerd',
  'docs/recipes.md#Use arm64 runners': 'there is one machine, and it has one architecture',
  'README.md#Load while the job sets itself up':
    'act doesn’t know background steps: __tests__/integration/side-by-side.test.ts starts them as the runner does',
  'joined/README.md#The joined action': 'its two steps are in the scenario joined',
  'TROUBLESHOOTING.md#builder-unsupported': 'its one step is in nearly every scenario',
  'TROUBLESHOOTING.md#run-not-found': 'act knows no permissions',
  'a job that is cancelled': 'act ends the whole run; __tests__/faults/ has the actions’ side',
  'parallel steps (background, wait, cancel)':
    'act doesn’t know them; __tests__/integration/side-by-side.test.ts has the actions’ side',
  'jobs in containers': 'act runs on this machine itself here',
  'runners with Windows, macOS or without an engine': '__tests__/scenario/hosts.test.ts plays them',
  'the permissions of a fork’s pull request': 'act knows no permissions',
  'actions/attest': 'it signs with GitHub’s own service: its inputs are made here, and no more',
  Kubernetes: 'kind’s node image can’t be fetched here: what runs on the nodes is their containerd alone',
  'ghcr.io': 'a registry of our own on this machine stands for it',
  'GitHub’s artifact and cache services':
    'our stand-in, which the official client is run against, and act’s cache server',
};

/** Recipes of the documentation that neither a scenario runs nor the list above names, and entries that name none. */
export function unaccounted(): readonly string[] {
  const known = recipeIds();
  const accounted = new Set([...scenarios.flatMap(({ recipes }) => recipes), ...Object.keys(notRunHere)]);
  const stale = [...accounted].filter((id) => id.includes('#') && !known.includes(id));
  return [...known.filter((id) => !accounted.has(id)), ...stale.map((id) => `${id} (there is no such recipe)`)];
}
