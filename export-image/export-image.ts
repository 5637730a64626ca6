import { join } from 'node:path';
import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import type { BuildStep } from '../shared/docker/build-progress.ts';
import { explainDiskFull, requireDiskSpace } from '../shared/disk-space.ts';
import { asError, HandoverError } from '../shared/errors.ts';
import type { ImageContents } from '../shared/image/image-contents.ts';
import { readOciLayout } from '../shared/image/oci-layout.ts';
import type { HandoverRecord, Producer } from '../shared/image/record.ts';
import { formatReference, type TaggedReference } from '../shared/image/reference.ts';
import { planTarball, tarballChunks } from '../shared/image/tarball-writer.ts';
import type { Log } from '../shared/log.ts';
import { partialFile } from '../shared/partial-file.ts';
import { makeTempDir } from '../shared/temp-dir.ts';
import { formatBytes } from '../shared/text.ts';
import type { Timeline } from '../shared/timeline.ts';
import { handoverFiles, type UnsealedRecord } from './handover-files.ts';
import { buildIntoLayout, saveIntoLayout, type SourcedImage, type SourceTools } from './image-source.ts';
import { claimName } from './name-claim.ts';
import { describeSource, type ExportPlan } from './plan.ts';
import { finishPush, pushedByBuild, type PushOutcome } from './push.ts';
import { openSourceTarball } from './source-tarball.ts';
import { imageRecord, type TaggedImage } from './unsealed-record.ts';

/** What happened. */
export interface ExportResult {
  readonly record: HandoverRecord;
  readonly artifact: Artifact;
  readonly tarballPath: string;
  readonly steps: readonly BuildStep[];
  readonly push: PushOutcome;
}

export interface ExportTools extends Omit<SourceTools, 'tempDir'> {
  readonly store: ArtifactStore;
  readonly timeline: Timeline;
  readonly producer: Producer;
  readonly tempRoot: string;
}

const spaceAdvice = 'Set `tarball` to a path on a filesystem with more space, such as ${{ runner.temp }}/charon.tar.';

const tempAdvice = 'Free space in RUNNER_TEMP first: the image passes through it. df -h shows what there is.';

/**
 * Builds or takes the image, writes the tarball, and uploads it with its record while it is being written.
 * @throws HandoverError of any code of the producer; then no tarball, tag or unfinished artifact is left behind
 */
export async function exportImage(plan: ExportPlan, tools: ExportTools): Promise<ExportResult> {
  const { log, timeline } = tools;
  log.info(`Handing over ${describeSource(plan.source)} as the artifact "${plan.artifactName}"`);
  for (const notice of plan.notices) log.notice(notice);
  const claim = await claimName(tools.store, plan.artifactName, tools.producer);
  if (plan.source.kind === 'tarball') return handOverFile(plan, tools, plan.source.path, claim);

  await using temp = await makeTempDir(tools.tempRoot);
  const layout = join(temp.path, 'layout');
  const source = await fillLayout(plan, { ...tools, tempDir: temp.path }, layout).catch((error: unknown) => {
    throw asError(explainDiskFull(error, temp.path, tempAdvice));
  });
  await using kept = new AsyncDisposableStack();
  kept.use(source.kept);
  if (plan.source.kind === 'build') requireCached(source.steps, plan.requireCache, log);
  const image = await readOciLayout(layout, plan.platform, source.replaced);
  const references = [requireReference(plan.reference), ...plan.tags];
  const further = await saveFurther(plan, { ...tools, tempDir: temp.path }, layout);
  const tarball = planTarball(layout, [{ image, references }, ...further]);
  await requireDiskSpace(plan.tarballPath, tarball.size, 'The tarball', spaceAdvice);

  const facts = { image, references, further, tarball, path: plan.tarballPath, producer: tools.producer };
  const unsealed = imageRecord({ ...facts, pushedReference: pushedByBuild(plan.push, source.push) });
  await using file = await partialFile(plan.tarballPath, spaceAdvice);
  await claim.release();
  const handedOver = await log.chapter('Write and upload', () =>
    timeline.measure('Write and upload', () =>
      upload(plan, tools, unsealed, { size: tarball.size, chunks: file.tee(tarballChunks(tarball)) }),
    ),
  );
  await file.commit();
  logTarball(log, plan.tarballPath, handedOver.record, image);
  const push = await finishPush(plan.push, source.push, tools);
  return { ...handedOver, tarballPath: plan.tarballPath, steps: source.steps, push };
}

async function fillLayout(
  { source, platform, push, requireCache, compression }: ExportPlan,
  tools: ExportTools & SourceTools,
  directory: string,
): Promise<SourcedImage> {
  const { log, timeline } = tools;
  const layout = { directory, compression };
  if (source.kind === 'engine') {
    const save = (): Promise<SourcedImage> => saveIntoLayout(tools, source.reference, layout, push);
    return log.chapter('Save', () => timeline.measure('Save', save));
  }
  if (source.kind !== 'build') throw new RangeError('a tarball is handed over as it is');
  const request = { build: source.build, secrets: source.secrets, platform, layout, push, requireCache };
  return log.chapter('Build', () => timeline.measure('Build', () => buildIntoLayout(tools, request)));
}

/** Saves the further images into the same layout, which keeps each layer once. */
async function saveFurther(
  { further, platform, compression }: ExportPlan,
  tools: ExportTools & SourceTools,
  directory: string,
): Promise<readonly TaggedImage[]> {
  const images: TaggedImage[] = [];
  for (const reference of further) {
    const save = (): Promise<SourcedImage> => saveIntoLayout(tools, reference, { directory, compression }, undefined);
    const { replaced } = await tools.log.chapter(`Save ${formatReference(reference)}`, () =>
      tools.timeline.measure('Save', save),
    );
    images.push({ image: await readOciLayout(directory, platform, replaced), references: [reference] });
  }
  return images;
}

function requireCached(steps: readonly BuildStep[], required: boolean, log: Log): void {
  const executed = steps.filter((step) => !step.cached);
  log.info(`Build steps: ${String(steps.length - executed.length)} cached, ${String(executed.length)} executed`);
  if (!required || executed.length === 0) return;
  throw new HandoverError(
    'cache-missed',
    `The export had to run ${String(executed.length)} of ${String(steps.length)} build steps: ` +
      executed.map((step) => step.name).join('; '),
    'Give the export the same inputs as the main build (build-args, target, platform), and let that build write ' +
      '`cache-to: type=gha,mode=max` first. Or set `require-cache: false`.',
  );
}

async function handOverFile(
  plan: ExportPlan,
  tools: ExportTools,
  path: string,
  claim: Awaited<ReturnType<typeof claimName>>,
): Promise<ExportResult> {
  const { log, timeline } = tools;
  const source = await log.chapter('Check the tarball', () =>
    timeline.measure('Check the tarball', () => openSourceTarball(path, plan, tools.producer)),
  );
  await claim.release();
  const handedOver = await log.chapter('Upload', () =>
    timeline.measure('Upload', () => upload(plan, tools, source.unsealed, source)),
  );
  log.info(`Tarball: ${path}, ${formatBytes(source.size)}`);
  return { ...handedOver, tarballPath: path, steps: [], push: { kind: 'none' } };
}

async function upload(
  plan: ExportPlan,
  tools: ExportTools,
  unsealed: UnsealedRecord,
  tarball: { readonly size: number; readonly chunks: AsyncIterable<Buffer> },
): Promise<{ readonly record: HandoverRecord; readonly artifact: Artifact }> {
  const progress = tools.log.progress('Uploaded', tarball.size);
  let record: HandoverRecord | undefined;
  try {
    const artifact = await tools.store.upload({
      name: plan.artifactName,
      retentionDays: plan.retentionDays,
      files: handoverFiles(unsealed, tarball, (sealed) => (record = sealed)),
      onBytes: (bytes) => {
        progress.add(bytes);
      },
    });
    if (record === undefined) throw new RangeError('the upload ended before the record was written');
    return { record, artifact };
  } finally {
    progress.done();
  }
}

function requireReference(reference: TaggedReference | undefined): TaggedReference {
  if (reference === undefined) throw new RangeError('a build is always planned with a reference');
  return reference;
}

function logTarball(log: Log, path: string, record: HandoverRecord, image: ImageContents): void {
  log.info(`Image: ${record.references.map(formatReference).join(', ')}, config ${image.configDigest}`);
  log.info(`Tarball: ${path}, ${formatBytes(record.tarballSize)} (${String(record.tarballSize)} bytes)`);
}
