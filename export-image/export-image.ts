import { join, resolve } from 'node:path';
import { asError, CacheFailure, invalidInput } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import { formatBytes } from '../shared/base/text.ts';
import { explainDiskFull } from '../shared/bytes/disk-space.ts';
import { makeTempDir } from '../shared/bytes/files.ts';
import { type PartialFile, partialFile } from '../shared/bytes/partial-file.ts';
import type { BuildStep } from '../shared/docker/build-progress.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { Tools } from './tools.ts';
import { chapter } from '../shared/base/timeline.ts';
import { claimName, spaceAdvice, type Uploaded, upload, uploadLayout } from './upload.ts';
import { describeSource, type ExportPlan, type LayoutPlan, type TarballPlan, withoutCacheFrom } from './plan/plan.ts';
import { finishPush, type PushOutcome } from './push.ts';
import { fillLayout } from './source/filled-layout.ts';
import { openSourceLayout, openSourceTarball } from './source/from-tarball.ts';

export interface ExportResult extends Uploaded {
  readonly tarballPath: string;
  readonly steps: readonly BuildStep[];
  readonly push: PushOutcome;
}

export interface ExportTools extends Tools {
  readonly tempRoot: string;
  /** Called with the result once the image is handed over, possibly before the build caches are written. */
  readonly onHandedOver: (result: ExportResult) => void;
}

const tempAdvice =
  'Free space in RUNNER_TEMP, where the image is stored during the export. `df -h` shows the free space.';

/**
 * Builds or saves the image, writes the tarball, and uploads it with its record, all at the same time.
 * @throws HandoverError with any error code of export-image. No tarball, tag or unfinished artifact is left behind.
 */
export async function exportImage(plan: ExportPlan, tools: ExportTools): Promise<ExportResult> {
  const { log } = tools;
  log.info(`Handing over ${describeSource(plan.source)} as the artifact "${plan.artifactName}"`);
  for (const remark of plan.remarks) log.info(remark);
  for (const notice of plan.notices) log.notice(notice);
  for (const warning of plan.warnings) log.warning(warning);
  if (plan.kind === 'tarball') return exportTarball(plan, tools);
  try {
    return await exportLayout(plan, tools, []);
  } catch (error) {
    if (!(error instanceof CacheFailure)) throw error;
    log.info(`${error.message} Building again without \`cache-from\`.`);
    return exportLayout(withoutCacheFrom(plan), tools, [`cache-from was ignored: ${error.why}.`]);
  }
}

/** @param problems sentences about build caches from an earlier attempt to build */
async function exportLayout(plan: LayoutPlan, tools: ExportTools, problems: readonly string[]): Promise<ExportResult> {
  const { log } = tools;
  const release = await claimName(plan, tools);
  await using temp = await makeTempDir(tools.tempRoot);
  await using file = await partialFile(plan.tarballPath, spaceAdvice, log);
  await using kept = new AsyncDisposableStack();
  const layoutTools = { ...tools, kept, tempDir: temp.path, layout: join(temp.path, 'layout') };
  const filled = fillLayout(plan, layoutTools).catch((error: unknown) => {
    throw asError(explainDiskFull(error, temp.path, tempAdvice));
  });
  const uploaded = uploadLayout(plan, layoutTools, filled, { file, release });
  // Caches are written during the upload. If the push still has to build other platforms, they are written after the push.
  if (plan.push === undefined || plan.push.listedPlatforms.length === 0)
    void filled.then(
      ({ caches }) => caches.begin(),
      () => undefined,
    );
  // Nothing is removed before both have ended. If filling the layout fails, the upload also fails.
  await Promise.allSettled([filled, uploaded]);
  const { steps, push: pending, caches } = await filled;
  const { record, artifact } = await uploaded;
  await file.commit();
  log.info(`Image: ${record.references.map(formatReference).join(', ')}, config ${record.configDigest}`);
  const size = record.tarballSize;
  log.info(`Tarball: ${plan.tarballPath}, ${formatBytes(size)} (${String(size)} bytes)`);
  const push = await finishPush(plan.push, pending, tools);
  const result = { record, artifact, tarballPath: plan.tarballPath, steps, push };
  tools.onHandedOver(result);
  const failed = [...problems, ...(await caches.problems())];
  if (failed.length > 0) log.notice(`A build cache failed, which doesn’t affect the image: ${failed.join(' ')}`);
  return result;
}

async function exportTarball(plan: TarballPlan, tools: ExportTools): Promise<ExportResult> {
  const { log } = tools;
  const release = await claimName(plan, tools);
  const { kind, path: given } = plan.source;
  const open = kind === 'layout' ? openSourceLayout : openSourceTarball;
  const tarball = await chapter(tools, `Check the ${kind}`, () => open(plan));
  // A source that some engines can't load becomes a new tarball.
  await using file = tarball.size === undefined ? await newFile(plan, log) : undefined;
  if (file !== undefined)
    log.info(
      `${given} is an OCI ${kind === 'layout' ? kind : 'archive'}. Its image is handed over as a tarball that every engine loads.`,
    );
  const path = file === undefined ? given : plan.tarballPath;
  const uploaded = await log.chapter('Upload', () =>
    upload(plan, tools, { tarball, path, file, release, spans: ['Upload', 'Read'] }),
  );
  await file?.commit();
  log.info(`Tarball: ${path}, ${formatBytes(uploaded.record.tarballSize)}`);
  const result = { ...uploaded, tarballPath: path, steps: [], push: { kind: 'none' } } as const;
  tools.onHandedOver(result);
  return result;
}

async function newFile({ tarballPath, source }: TarballPlan, log: Log): Promise<PartialFile> {
  if (resolve(tarballPath) !== resolve(source.path)) return partialFile(tarballPath, spaceAdvice, log);
  throw invalidInput(
    `The OCI archive ${source.path} is handed over as a new tarball, which would overwrite it: \`tarball\` is the same path.`,
    'Set `tarball` to another path.',
  );
}
