import { posix } from 'node:path';
import type { RunChoice, RunSearch } from '../artifacts/service/other-run.ts';
import { invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

export interface OtherRunInputs {
  readonly runId: string | undefined;
  readonly workflow: string | undefined;
  readonly branch: string | undefined;
  readonly event: string | undefined;
  readonly repository: string | undefined;
  readonly githubToken: string | undefined;
  readonly allowForkRuns: boolean;
}

/** Another workflow run, and the token that may read its artifacts. */
export interface OtherRun {
  readonly search: RunSearch;
  readonly token: string;
}

interface RunFacts {
  /** Names, patterns and ids of artifacts. */
  readonly wanted: readonly string[];
  /** `owner/name` of this job's repository. */
  readonly ownRepository: string;
  /** The name of the input for `repository`. */
  readonly repositoryInput?: string;
}

/**
 * Decides which other run the artifacts come from.
 * @returns undefined for this job's own run
 * @throws HandoverError `invalid-input`
 */
export function planOtherRun(
  inputs: OtherRunInputs,
  { wanted, ownRepository, repositoryInput = 'repository' }: RunFacts,
): OtherRun | undefined {
  const choice = planChoice(inputs, repositoryInput);
  if (choice === undefined) return undefined;
  const repository = inputs.repository ?? ownRepository;
  if (!/^[\w-][\w.-]*\/[\w.-]+$/.test(repository) || /\/\.{1,2}$/.test(repository)) {
    throw invalidInput(`The input \`${repositoryInput}\` is "${quoteForeign(repository)}"; expected owner/name.`);
  }
  if (inputs.githubToken === undefined) {
    throw invalidInput(
      'The input `github-token` is empty, and another run can only be read with a token.',
      'Leave `github-token` out to use the job’s own, with `permissions: actions: read`.',
    );
  }
  const search = { choice, repository, wanted, allowForkRuns: inputs.allowForkRuns };
  return { search, token: inputs.githubToken };
}

function planChoice(
  { runId, workflow, branch, event, repository }: OtherRunInputs,
  repositoryInput: string,
): RunChoice | undefined {
  if (runId !== undefined) return { runId: planRunId(runId, { workflow, branch, event }) };
  if (workflow !== undefined) {
    if (branch !== undefined) return { workflow: planWorkflow(workflow), branch, event };
    throw invalidInput(
      'The input `workflow` is given without `branch`.',
      'Name the branch too, such as `branch: main`.',
    );
  }
  const alone = firstGiven({ branch, event, [repositoryInput]: repository });
  if (alone === undefined) return undefined;
  throw invalidInput(
    `The input \`${alone}\` is given without \`workflow\` and without \`run-id\`.`,
    'Give `workflow` and `branch` for the latest run, `run-id` for one run, or neither for this run.',
  );
}

function planWorkflow(workflow: string): string {
  const name = posix.basename(workflow);
  if (/.\.ya?ml$/.test(name) || /^\d+$/.test(name)) return name;
  throw invalidInput(
    `The input \`workflow\` is "${quoteForeign(workflow)}"; expected the name of its file, such as ci.yml.`,
    'It is the file below .github/workflows, not the `name:` in it.',
  );
}

function planRunId(runId: string, others: Readonly<Record<string, string | undefined>>): number {
  const conflict = firstGiven(others);
  if (conflict !== undefined) {
    throw invalidInput(
      `Both \`run-id\` (${quoteForeign(runId)}) and \`${conflict}\` are given.`,
      'Give `run-id` for one run, or `workflow` and `branch` for the latest one.',
    );
  }
  const id = Number(runId);
  if (/^[1-9]\d*$/.test(runId) && Number.isSafeInteger(id)) return id;
  throw invalidInput(
    `The input \`run-id\` is "${quoteForeign(runId)}"; expected the number of a run.`,
    'It is the number in the run’s address, or an expression such as ${{ github.event.workflow_run.id }}.',
  );
}

function firstGiven(inputs: Readonly<Record<string, string | undefined>>): string | undefined {
  return Object.entries(inputs).find(([, value]) => value !== undefined)?.[0];
}
