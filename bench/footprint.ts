import { statSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot, runStep } from '../dev/action-runner.ts';
import { median } from './measured.ts';

/** What the actions weigh before they do anything. */
export interface Footprint {
  readonly action: string;
  /** ms from the start of the process to the error for a bad input, median of ten. */
  readonly startMs: number;
  /** Bytes of JavaScript that are read at the start, and of the official client, which is read only when it is needed. */
  readonly entryBytes: number;
  readonly laterBytes: number;
}

export async function footprint(): Promise<readonly Footprint[]> {
  const all: Footprint[] = [];
  for (const action of ['export-image', 'load-image']) {
    const times: number[] = [];
    for (let round = 0; round < 10; round += 1) {
      const began = performance.now();
      const { exitCode } = await runStep({ action, inputs: { 'artifact-name': 'a:b' } });
      if (exitCode !== 1) throw new Error(`${action} took a:b for the name of an artifact`);
      times.push(performance.now() - began);
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
