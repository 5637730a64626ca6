import { posix } from 'node:path';
import type { RunInputs } from '../own-inputs.ts';
import type { ImagesPlan } from './images-plan.ts';
import type { RunChoice, RunSearch } from '../../shared/artifacts/service/other-run.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { parseReference, type Reference } from '../../shared/image/reference.ts';
import { requireDocker } from '../../shared/image/host.ts';

/** Where the artifact comes from, and what is taken when it isn't there. */
export interface RunPlan {
  /** The other run to look for; undefined is this job's own run. */
  readonly other: { readonly search: RunSearch; readonly token: string } | undefined;
  readonly fallback: Reference | undefined;
}

/**
 * @param ownRepository `owner/name` of this job's repository
 * @throws HandoverError `invalid-input`
 */
export function planRun(inputs: RunInputs, images: ImagesPlan, ownRepository: string): RunPlan {
  const fallback = planFallback(inputs, images);
  if (inputs.allowForkRuns && planChoice(inputs) !== undefined) requireOneName(images);
  const wanted = images.kind === 'one' ? [images.plan.artifactName] : images.wanted;
  return { other: planOtherRun(inputs, wanted, ownRepository), fallback };
}

/**
 * @param wanted names and patterns of artifacts
 * @param ownRepository `owner/name` of this job's repository
 * @returns undefined for this job's own run
 * @throws HandoverError `invalid-input`
 */
export function planOtherRun(
  inputs: Omit<RunInputs, 'fallbackImage'>,
  wanted: readonly string[],
  ownRepository: string,
): RunPlan['other'] {
  const choice = planChoice(inputs);
  if (choice === undefined) return undefined;
  const repository = inputs.repository ?? ownRepository;
  if (!/^[\w-][\w.-]*\/[\w.-]+$/.test(repository) || /\/\.{1,2}$/.test(repository)) {
    throw invalid(`The input \`repository\` is "${quoteForeign(repository)}"; expected owner/name.`);
  }
  if (inputs.githubToken === undefined) {
    throw invalid(
      'The input `github-token` is empty, and another run can only be read with a token.',
      'Leave `github-token` out to use the job’s own, with `permissions: actions: read`.',
    );
  }
  const search = { choice, repository, wanted, allowForkRuns: inputs.allowForkRuns };
  return { search, token: inputs.githubToken };
}

// Whoever opened the pull request also chose the names in it, `alpine:latest` for instance.
function requireOneName(images: ImagesPlan): void {
  if (images.kind === 'one' ? images.plan.reference !== undefined : images.kind === 'mapping') return;
  throw invalid(
    '`allow-fork-runs` is given without `image`: a fork would decide which names its images get here.',
    'Set `image` to the one reference that the image is to have, such as `image: charon:pr`, and load one artifact.',
  );
}

function planChoice({
  runId,
  workflow,
  branch,
  event,
  repository,
}: Omit<RunInputs, 'fallbackImage'>): RunChoice | undefined {
  if (runId !== undefined) return { runId: planRunId(runId, { workflow, branch, event }) };
  if (workflow !== undefined) {
    if (branch !== undefined) return { workflow: planWorkflow(workflow), branch, event };
    throw invalid('The input `workflow` is given without `branch`.', 'Name the branch too, such as `branch: main`.');
  }
  const [alone] = given({ branch, event, repository });
  if (alone === undefined) return undefined;
  throw invalid(
    `The input \`${alone}\` is given without \`workflow\` and without \`run-id\`.`,
    'Give `workflow` and `branch` for the latest run, `run-id` for one run, or neither for this run.',
  );
}

function planWorkflow(workflow: string): string {
  const name = posix.basename(workflow);
  if (/.\.ya?ml$/.test(name) || /^\d+$/.test(name)) return name;
  throw invalid(
    `The input \`workflow\` is "${quoteForeign(workflow)}"; expected the name of its file, such as ci.yml.`,
    'It is the file below .github/workflows, not the `name:` in it.',
  );
}

function planRunId(runId: string, others: Readonly<Record<string, string | undefined>>): number {
  const [conflict] = given(others);
  if (conflict !== undefined) {
    throw invalid(
      `Both \`run-id\` (${quoteForeign(runId)}) and \`${conflict}\` are given.`,
      'Give `run-id` for one run, or `workflow` and `branch` for the latest one.',
    );
  }
  const id = Number(runId);
  if (/^[1-9]\d*$/.test(runId) && Number.isSafeInteger(id)) return id;
  throw invalid(
    `The input \`run-id\` is "${quoteForeign(runId)}"; expected the number of a run.`,
    'It is the number in the run’s address, or an expression such as ${{ github.event.workflow_run.id }}.',
  );
}

function given(inputs: Readonly<Record<string, string | undefined>>): readonly string[] {
  return Object.entries(inputs).flatMap(([name, value]) => (value === undefined ? [] : [name]));
}

function planFallback({ fallbackImage }: RunInputs, images: ImagesPlan): Reference | undefined {
  if (fallbackImage === undefined) return undefined;
  if (images.kind !== 'one') {
    throw invalid('The input `fallback-image` stands for one image, and no one image is loaded.', 'Leave it out.');
  }
  const { tarballPath, layoutPath, into, engine } = images.plan;
  requireDocker(engine, '`fallback-image`');
  const other = tarballPath !== undefined ? 'tarball' : layoutPath !== undefined ? 'oci-layout' : undefined;
  if (into.kind !== 'engine' || other !== undefined) {
    throw invalid(
      `Both \`fallback-image\` and \`${other ?? 'into'}\` are given, but an image that is pulled leaves no tarball and no layout, and goes into the engine alone.`,
      'Leave one of them out.',
    );
  }
  const reference = parseReference(fallbackImage);
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: 'latest' } : reference;
}

function invalid(message: string, hint = 'Correct it under `with:`.'): HandoverError {
  return new HandoverError('invalid-input', message, hint);
}
