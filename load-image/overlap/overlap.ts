import { Readable } from 'node:stream';
import { type SkippedLayers, tellSkipped } from '../skipped-layers.ts';
import { differences } from '../verify.ts';
import type { ArtifactContent } from '../../shared/artifacts/store.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { EngineInfo } from '../../shared/docker/output.ts';
import type { Digest } from '../../shared/image/digest.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { type LayerWatch, type OfferedLayers, offerLayers } from './offered-layers.ts';
import { PassingTarball } from './passing-tarball.ts';

/** Who wants to know what is going on. */
export interface Told {
  /** Of each reference and ID that the engine loaded, even when the load fails. */
  readonly loaded: (loaded: string) => void;
  /** Of each part that was downloaded, in bytes. */
  readonly bytes: (bytes: number) => void;
}

/**
 * Lets the engine fetch the layers that it lacks, so that it unpacks one while others are downloaded; then has it load the
 * rest of the tarball, which names the image.
 * @returns the references and IDs that the engine says it loaded; undefined when that can't be done, and the tarball has to be loaded as it is
 * @throws HandoverError `transfer-failed`, `artifact-expired` and `artifact-corrupt`, when the artifact can't be read
 */
export async function loadOverlapped(
  { engine, log, info }: { readonly engine: Engine; readonly log: Log; readonly info: EngineInfo },
  content: ArtifactContent,
  record: HandoverRecord,
  told: Told,
): Promise<readonly string[] | undefined> {
  const { fetch } = engine;
  const offered = fetch === undefined ? undefined : await offerLayers(content, record);
  if (fetch === undefined || offered === undefined) return undefined;
  const asked = new Set<Digest>();
  const total = { atMost: bytesIn(offered, () => true) };
  try {
    const loaded = await log.progress(wordFor(content), total, (passed) => {
      const onBytes = (bytes: number): void => {
        told.bytes(bytes);
        passed(bytes);
      };
      const watch = { onAsked: (digest: Digest) => void asked.add(digest), onBytes };
      return fetchAndLoad({ engine, fetch, log }, info, offered, watch, told);
    });
    tellUnpacked(log, offered, asked);
    const hasSkipped = asked.size < offered.layers.size;
    if (!hasSkipped && !needsBothForms(offered, info)) return loaded;
    if (await isWhole(engine, loaded, record)) {
      if (hasSkipped) tellSkipped(log, skippedOf(offered, asked));
      return loaded;
    }
    log.info('The engine has layers of another form than this image has. So docker load gets the whole tarball.');
    return undefined;
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code !== 'load-failed') throw error;
    log.info(`${error.message} So docker load gets the whole tarball.`);
    return undefined;
  }
}

/** What the log calls it when bytes of the artifact pass to the engine. */
export function wordFor({ downloaded }: ArtifactContent): string {
  return downloaded() === undefined ? 'Downloaded' : 'Read from this machine';
}

function tellUnpacked(log: Log, { unpacked }: OfferedLayers, asked: ReadonlySet<Digest>): void {
  const passed = [...asked].filter((digest) => unpacked.has(digest)).length;
  if (passed === 0) return;
  log.info(
    `Unpacked on their way to the engine: ${String(passed)} of the ${String(asked.size)} layers that it fetched.`,
  );
}

// The containerd store keeps the layers as the image's manifest names them, beside what is unpacked.
function needsBothForms({ unpacked }: OfferedLayers, { imageStore }: EngineInfo): boolean {
  return unpacked.size > 0 && imageStore === 'containerd';
}

interface FetchTools {
  readonly engine: Engine;
  readonly fetch: Exclude<Engine['fetch'], undefined>;
  readonly log: Log;
}

async function fetchAndLoad(
  { engine, fetch, log }: FetchTools,
  info: EngineInfo,
  offered: OfferedLayers,
  watch: LayerWatch,
  told: Told,
): Promise<readonly string[]> {
  // What the image is called until it has got its own name goes at the end.
  await using fetched = new AsyncDisposableStack();
  if (!needsBothForms(offered, info)) {
    fetched.use(await fetch(offered.image(watch), log.warning));
    return await engine.load(Readable.from([offered.rest]), told.loaded);
  }
  const tarball = new PassingTarball();
  const loading = engine.load(tarball.chunks(), told.loaded);
  // Thrown below, when the engine has got what it fetches.
  loading.catch((error: unknown) => {
    tarball.fail(error);
  });
  try {
    fetched.use(await fetch(offered.image(watch, tarball), log.warning));
    await tarball.end(offered.rest);
  } catch (error) {
    tarball.fail(error);
    await loading.catch(() => undefined);
    throw error;
  }
  return await loading;
}

// The containerd store doesn't fetch a layer that it has unpacked for another manifest, and then lacks it for this one. It also
// lacks one that came in other bytes than the manifest names.
async function isWhole(engine: Engine, loaded: readonly string[], record: HandoverRecord): Promise<boolean> {
  const [name] = loaded;
  const image = name === undefined ? undefined : await engine.inspect(name);
  return image?.isWhole === true && differences(record, image).length === 0;
}

function skippedOf(offered: OfferedLayers, asked: ReadonlySet<Digest>): SkippedLayers {
  const layers = offered.layers.size;
  return { skipped: layers - asked.size, layers, bytes: bytesIn(offered, (digest) => !asked.has(digest)) };
}

function bytesIn({ layers }: OfferedLayers, counts: (digest: Digest) => boolean): number {
  return [...layers.values()].reduce((sum, { digest, size }) => (counts(digest) ? sum + size : sum), 0);
}
