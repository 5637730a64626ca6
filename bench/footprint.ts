import { statSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot, runStep } from '../dev/action-runner.ts';
import { median } from './measured.ts';

/** Size and start-up time of an action. */
export interface Footprint {
  readonly action: string;
  /** Median of ten runs in ms, from the start of the process to the error for an invalid input. */
  readonly startMs: number;
  /** Bytes of JavaScript read at the start. `laterBytes` are those of the official client, which is read on demand. */
  readonly entryBytes: number;
  readonly laterBytes: number;
}

export async function footprint(): Promise<readonly Footprint[]> {
  const all: Footprint[] = [];
  for (const action of ['export-image', 'load-image']) {
    const times: number[] = [];
    for (let round = 0; round < 10; round += 1) {
      const startedAt = performance.now();
      const { exitCode } = await runStep({ action, inputs: { 'artifact-name': 'a:b' } });
      if (exitCode !== 1) throw new Error(`${action} accepted a:b as an artifact name`);
      times.push(performance.now() - startedAt);
    }
    const sizeOf = (bundle: string): number => statSync(join(projectRoot, 'dist', bundle, 'index.js')).size;
    all.push({
      action,
      startMs: median(times),
      entryBytes: sizeOf(action),
      laterBytes: sizeOf('official-client'),
    });
  }
  return all;
}
