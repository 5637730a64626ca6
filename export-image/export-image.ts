import { basename, join, resolve } from 'node:path';
import { asError, CacheFailure, invalidInput } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import { formatBytes } from '../shared/base/text.ts';
import { explainDiskFull } from '../shared/bytes/disk-space.ts';
import { makeTempDir } from '../shared/bytes/files.ts';
import { type PartialFile, partialFile } from '../shared/bytes/partial-file.ts';
import type { BuildStep } from '../shared/docker/build-progress.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import { formatReference } from '../shared/image/reference.ts';
import { mayKeep, spaceAdvice, type Uploaded, upload, uploadLayout, type UploadTools } from './upload.ts';
import { claimName, type NameClaim } from './name-claim.ts';
import { describeSource, type ExportPlan, type LayoutPlan, type TarballPlan, withoutCacheFrom } from './plan/plan.ts';
import { finishPush, type PushOutcome } from './push.ts';
import { fillLayout, type StepsListener } from './source/filled-layout.ts';
import { openSourceLayout, openSourceTarball } from './source/from-tarball.ts';
import type { SourceTools } from './source/from-engine.ts';

export interface ExportResult extends Uploaded {
  readonly tarballPath: string;
  readonly steps: readonly BuildStep[];
  readonly push: PushOutcome;
}

export interface ExportTools extends Omit<SourceTools, 'tempDir'>, UploadTools, StepsListener {
  readonly tempRoot: string;
  /** Called with the result when the image is handed over, which may be before the build caches are written. */
  readonly onHandedOver: (result: ExportResult) => void;
}

const tempAdvice =
  'Free space in RUNNER_TEMP, where the image is stored during the export. `df -h` shows the free space.';

/**
 * Builds or saves the image, writes the tarball, and uploads it with its record, all at the same time.
 * @throws HandoverError with any code of an export. Then no tarball, tag or unfinished artifact is left behind.
 */
export async function exportImage(plan: ExportPlan, tools: ExportTools): Promise<ExportResult> {
  const { log } = tools;
  log.info(`Handing over ${describeSource(plan.source)} as the artifact "${plan.artifactName}"`);
  for (const remark of plan.remarks) log.info(remark);
  for (const notice of plan.notices) log.notice(notice);
  for (const warning of plan.warnings) log.warning(warning);
  if (plan.kind === 'tarball') return exportTarball(plan, tools, await claimFor(plan, tools));
  try {
    return await exportLayout(plan, tools, []);
  } catch (error) {
    if (!(error instanceof CacheFailure)) throw error;
    log.info(`${error.message} Building again without \`cache-from\`.`);
    return exportLayout(withoutCacheFrom(plan), tools, [`cache-from was given up: ${error.why}.`]);
  }
}

/** @param problems sentences about its caches that an earlier build has reported */
async function exportLayout(plan: LayoutPlan, tools: ExportTools, problems: readonly string[]): Promise<ExportResult> {
  const { log } = tools;
  const claim = await claimFor(plan, tools);
  await using temp = await makeTempDir(tools.tempRoot);
  await using file = await partialFile(plan.tarballPath, spaceAdvice, log);
  await using kept = new AsyncDisposableStack();
  const directory = join(temp.path, 'layout');
  const filled = fillLayout(plan, { ...tools, tempDir: temp.path }, directory, kept).catch((error: unknown) => {
    throw asError(explainDiskFull(error, temp.path, tempAdvice));
  });
  const uploaded = uploadLayout(plan, tools, { directory, filled, file, claim });
  // During the upload. A push that still has to build writes its cache first.
  if (plan.push === undefined || plan.push.listedPlatforms.length === 0)
    void filled.then(
      ({ caches }) => caches.begin(),
      () => undefined,
    );
  // Nothing is removed before both have ended. A failure of the layout is also one of the upload.
  await Promise.allSettled([filled, uploaded]);
  const { steps, push: pending, caches } = await filled;
  const { record, artifact } = await uploaded;
  await file.commit();
  logTarball(log, plan.tarballPath, record);
  const push = await finishPush(plan.push, pending, tools);
  const result = { record, artifact, tarballPath: plan.tarballPath, steps, push };
  tools.onHandedOver(result);
  const failed = [...problems, ...(await caches.problems())];
  if (failed.length > 0) log.notice(`A build cache failed, which doesn’t affect the image: ${failed.join(' ')}`);
  return result;
}

async function claimFor(plan: ExportPlan, { store, producer }: ExportTools): Promise<NameClaim> {
  try {
    return await claimName(store, plan.artifactName, producer);
  } catch (error) {
    if (!mayKeep(plan, error)) throw error;
    return { release: () => Promise.reject(asError(error)) };
  }
}

async function exportTarball(plan: TarballPlan, tools: ExportTools, claim: NameClaim): Promise<ExportResult> {
  const { log, timeline } = tools;
  const { kind, path } = plan.source;
  const open = kind === 'layout' ? openSourceLayout : openSourceTarball;
  const source = await log.chapter(`Check the ${kind}`, () =>
    timeline.measure(`Check the ${kind}`, () => open(plan, tools.producer)),
  );
  await using file = source.isNew ? await newFile(plan, log) : undefined;
  if (file !== undefined)
    log.info(
      `${path} is an OCI ${kind === 'layout' ? kind : 'archive'}. Its image is handed over as a tarball that every engine loads.`,
    );
  const tarballPath = file === undefined ? path : plan.tarballPath;
  const { size, chunks } = source;
  const tarball = { name: basename(tarballPath), size, chunks: file === undefined ? chunks : file.tee(chunks) };
  const uploaded = await log.chapter('Upload', () =>
    timeline.measure(
      (done) => (done !== undefined && done.artifact === undefined ? 'Read' : 'Upload'),
      () => upload(plan, tools, { tarball, claim }, source.unsealed),
    ),
  );
  await file?.commit();
  log.info(`Tarball: ${tarballPath}, ${formatBytes(uploaded.record.tarballSize)}`);
  const result = { ...uploaded, tarballPath, steps: [], push: { kind: 'none' } } as const;
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

function logTarball(log: Log, path: string, record: HandoverRecord): void {
  log.info(`Image: ${record.references.map(formatReference).join(', ')}, config ${record.configDigest}`);
  log.info(`Tarball: ${path}, ${formatBytes(record.tarballSize)} (${String(record.tarballSize)} bytes)`);
}
