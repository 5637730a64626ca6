import { recipeIds } from './recipes.ts';
import { actServer } from './scenarios/act-server.ts';
import { earlyAndBase } from './scenarios/early.ts';
import { examples } from './scenarios/examples.ts';
import { fanOut } from './scenarios/fan-out.ts';
import { firstWorkflow } from './scenarios/first-workflow.ts';
import { gate } from './scenarios/gate.ts';
import { giteaScenarios } from './scenarios/gitea.ts';
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
import { removal } from './scenarios/removal.ts';
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
  removal,
  push,
  publish,
  earlyAndBase,
  handovers,
  loads,
  officialClient,
  otherRun,
  thirdParty,
  fanOut,
  actServer,
  ...examples,
  ...giteaScenarios,
];

/** Recipes (`file#heading`) and features that no scenario runs, and why. */
export const notRunHere: Readonly<Record<string, string>> = {
  'docs/recipes.md#Use podman': 'needs podman with separate storage: see __tests__/integration/podman.test.ts',
  'docs/recipes.md#Load it straight into kind, k3d or a containerd':
    'kind’s node image can’t be pulled here: __tests__/integration/nodes.test.ts has nodes with a real containerd',
  'docs/recipes.md#Use arm64 runners': 'this machine has only one architecture',
  'README.md#Load while the job sets itself up':
    'act doesn’t support background steps: __tests__/integration/side-by-side.test.ts starts them like the runner',
  'joined/README.md#The joined action': 'the scenario "joined" runs both steps',
  'TROUBLESHOOTING.md#builder-unsupported': 'nearly every scenario contains this step',
  'TROUBLESHOOTING.md#run-not-found': 'act doesn’t support permissions',
  'a job that is cancelled': 'act cancels only whole runs: see __tests__/faults/ for the actions’ side',
  'parallel steps (background, wait, cancel)':
    'act doesn’t support them: see __tests__/integration/side-by-side.test.ts for the actions’ side',
  'jobs in containers': 'here, act runs jobs directly on this machine',
  'runners with Windows, macOS or without an engine': '__tests__/scenario/hosts.test.ts simulates them',
  'the permissions of a fork’s pull request': 'act doesn’t support permissions',
  'actions/attest': 'needs GitHub’s signing service: only its inputs are checked here',
  Kubernetes: 'kind’s node image can’t be pulled here: the nodes run only containerd',
  'ghcr.io': 'replaced by a registry on this machine',
  'GitHub’s artifact and cache services':
    'replaced by a fake, which is also tested with the official client, and by act’s cache server',
};

/** Returns recipes that are neither run nor listed above, and listed recipes that don't exist. */
export function unaccounted(): readonly string[] {
  const known = recipeIds();
  const accounted = new Set([...scenarios.flatMap(({ recipes }) => recipes), ...Object.keys(notRunHere)]);
  const stale = [...accounted].filter((id) => id.includes('#') && !known.includes(id));
  return [...known.filter((id) => !accounted.has(id)), ...stale.map((id) => `${id} (no such recipe)`)];
}
