import { formatDuration } from '../base/text.ts';

/** When an image was handed over, in ms since the epoch by its job's own clock. */
export interface HandoverTimes {
  /** The step began. */
  readonly began: number;
  /** The image was built, or taken from where it was. */
  readonly built: number;
  /** All of it had passed to the artifact service. */
  readonly ready: number;
}

// What the recipe of Docker's documentation takes for each byte of the handed-over tarball, on a machine with two cores and a fast
// link: docs/performance.md, 1 GB, containerd store.
const msPerByte = { export: 37e-6, load: 24e-6 } as const;

// The smallest that was measured has 142 MB. What a step takes whatever it carries is most of it, far below that.
const leastBytes = 100e6;

/**
 * A duration, and beside it what the same takes by the recipe of Docker's documentation: an estimate, for a tarball of a measured size.
 * @param took from the built image to the uploaded artifact, or from the artifact to the loaded image, in ms
 * @param bytes of the tarball that was handed over
 */
export function besidePlainRecipe(took: number, work: keyof typeof msPerByte, bytes: number): string {
  const plain = formatDuration(bytes * msPerByte[work]);
  const beside = `; by the recipe of Docker’s documentation about ${plain} (an estimate from the size)`;
  return formatDuration(took) + (bytes < leastBytes ? '' : beside);
}
