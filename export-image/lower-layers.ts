import { diskSpace } from '../shared/disk-space.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../shared/docker/output.ts';
import { engineFolder } from '../shared/engine-folder.ts';
import type { Log } from '../shared/log.ts';

// To save less ahead takes longer than to wait for it.
const leastBytes = 64 * 1024 * 1024;

/** Of an engine, and of an image that it has. */
export type SaveFacts = readonly [EngineInfo, InspectedImage | undefined];

/**
 * The lowest layers of an image on their own, as `docker save` writes them, while it is still silent about the whole
 * (docs/decisions.md); nothing where that can't be had, or isn't worth it.
 * @param facts asked only of an engine that may have them
 */
export async function* lowerLayers(
  { engine, log }: { readonly engine: Pick<Engine, 'saveLower'>; readonly log: Pick<Log, 'info' | 'warning'> },
  facts: () => Promise<SaveFacts>,
): AsyncGenerator<Buffer> {
  const { saveLower } = engine;
  if (saveLower === undefined) return;
  try {
    const [info, image] = await facts();
    if (image === undefined || info.imageStore !== 'classic') return;
    // The engine reads them twice at the same time: half of the image takes half as much work again.
    const bytes = { atLeast: leastBytes, atMost: image.size / 2 };
    if (bytes.atMost < bytes.atLeast || !(await hasRoom(info, image.size + bytes.atMost))) return;
    yield* saveLower(image, bytes, log.warning);
  } catch (error) {
    log.info(`The lowest layers come with the others: ${String(error)}`);
  }
}

// `docker save` has what it writes in a temporary folder first.
async function hasRoom(info: EngineInfo, bytes: number): Promise<boolean> {
  const folder = engineFolder(info);
  const space = folder === undefined ? undefined : await diskSpace(folder);
  return space !== undefined && space.freeBytes > bytes;
}
