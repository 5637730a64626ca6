import type { Log } from '../shared/base/log.ts';
import { formatBytes } from '../shared/base/text.ts';

/** Layers that needn't be downloaded. */
export interface SkippedLayers {
  readonly skipped: number;
  /** Of the whole image. */
  readonly layers: number;
  readonly bytes: number;
}

export function tellSkipped(log: Log, { skipped, layers, bytes }: SkippedLayers): void {
  log.info(
    `The engine has ${String(skipped)} of ${String(layers)} layers already: ${formatBytes(bytes)} less to download.`,
  );
}
