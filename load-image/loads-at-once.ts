// Each load holds parts of its download, some 20 MB: more at once aren't faster, and memory has to stay flat.
const most = 3;

/**
 * How many images are loaded at once: as many as the disk takes even when the largest come together, but at least one.
 * @param needs bytes that each load needs on the disk
 * @param freeBytes bytes that are free there; undefined when that can't be told
 */
export function loadsAtOnce(needs: readonly number[], freeBytes: number | undefined): number {
  const largest = [...needs].sort((one, other) => other - one).slice(0, most);
  let sum = 0;
  const fitting = largest.filter((bytes) => (sum += bytes) <= (freeBytes ?? Infinity));
  return Math.max(1, fitting.length);
}
