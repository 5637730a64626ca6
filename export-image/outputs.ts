import type { BuildStep } from '../shared/docker/build-progress.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { ExportResult } from './export-image.ts';
import type { ExportPlan } from './plan/plan.ts';

/** The outputs of a step that fails, set before any work. */
export const failedOutputs = { 'run-integration': 'false' };

/** Returns the outputs of a build, which are set even if the export fails later. */
export function stepOutputs(steps: readonly BuildStep[]): Readonly<Record<string, string>> {
  const cached = steps.filter((step) => step.cached).length;
  return {
    'cached-steps': String(cached),
    'executed-steps': String(steps.length - cached),
  };
}

/** @param runUrl web address of the workflow run, or empty */
export function exportOutputs(
  result: ExportResult,
  plan: Pick<ExportPlan, 'immutableTag'>,
  runUrl: string,
): Readonly<Record<string, string>> {
  const { record, artifact, steps, push } = result;
  const pushed = push.kind === 'pushed' ? push.reference : undefined;
  const digest = pushed?.digest ?? record.indexDigest ?? record.manifestDigests[0] ?? '';
  return {
    'run-integration': String(artifact !== undefined),
    image: record.references.map(formatReference)[0] ?? '',
    'immutable-tag': plan.immutableTag ?? '',
    tarball: result.tarballPath,
    'tarball-size': String(record.tarballSize),
    'tarball-digest': record.tarballDigest,
    'config-digest': record.configDigest,
    'manifest-digest': digest,
    // Same names as in docker/build-push-action.
    digest,
    imageid: record.configDigest,
    'pushed-reference': pushed === undefined ? '' : formatReference(pushed),
    platform: formatPlatform(record.platform),
    'artifact-name': artifact?.name ?? '',
    'artifact-id': String(artifact?.id ?? ''),
    'artifact-url': runUrl === '' || artifact === undefined ? '' : `${runUrl}/artifacts/${String(artifact.id)}`,
    'artifact-digest': artifact?.digest ?? '',
    ...stepOutputs(steps),
  };
}
