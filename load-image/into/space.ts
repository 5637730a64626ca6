import { hostname } from 'node:os';
import { diskSpace, requireDiskSpace } from '../../shared/bytes/disk-space.ts';
import type { EngineInfo } from '../../shared/docker/output.ts';

/** The hint when the disk is full. */
export const spaceAdvice =
  'Set `tarball` to a path on a filesystem with more space, or leave it empty: then no file is kept.';

const layoutAdvice = 'Set `oci-layout` to a path on a filesystem with more space.';

// Each load holds about 20 MB of its download. More loads at once aren't faster, and memory has to stay constant.
const maxConcurrent = 3;

/**
 * Returns the number of images to load at once: as many as fit on the disk even when the largest load together, but at least one.
 * @param needs bytes that each load needs on the disk
 * @param freeBytes bytes free there; undefined when unknown
 * @internal
 */
export function fittingLoads(needs: readonly number[], freeBytes: number | undefined): number {
  const largest = [...needs].sort((one, other) => other - one).slice(0, maxConcurrent);
  let sum = 0;
  const fitting = largest.filter((bytes) => (sum += bytes) <= (freeBytes ?? Infinity));
  return Math.max(1, fitting.length);
}

/** Returns how many artifacts of these sizes, in bytes, that engine has space for at once. */
export async function loadsAtOnce(info: EngineInfo, sizes: readonly number[]): Promise<number> {
  const folder = engineFolder(info);
  const space = folder === undefined ? undefined : await diskSpace(folder);
  const needs = sizes.map((size) => info.imageStore.sizesWhileLoading * size);
  return fittingLoads(needs, space?.freeBytes);
}

/** Returns the engine's folder if it is on this machine. */
function engineFolder(info: EngineInfo): string | undefined {
  return info.dataRoot === '' || info.hostName !== hostname() ? undefined : info.dataRoot;
}

interface SpaceRequest {
  readonly info: EngineInfo;
  readonly tarballPath: string | undefined;
  readonly layoutPath: string | undefined;
}

/**
 * @param size of the artifact, in bytes
 * @throws HandoverError `not-enough-space`
 */
export async function requireSpace({ tarballPath, layoutPath, info }: SpaceRequest, size: number): Promise<void> {
  if (tarballPath !== undefined) await requireDiskSpace(tarballPath, size, 'The tarball', spaceAdvice);
  if (layoutPath !== undefined) await requireDiskSpace(layoutPath, size, 'The OCI layout', layoutAdvice);
  const folder = engineFolder(info);
  if (folder === undefined) return;
  const advice = 'Free space first: docker system prune -af; df -h.';
  const needed = info.imageStore.sizesWhileLoading * size;
  await requireDiskSpace(folder, needed, 'Loading the image into the engine', advice);
}
