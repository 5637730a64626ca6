import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { startDockerEngine } from '../dev/docker-engine.ts';
import { writeBaseContext } from '../dev/test-images.ts';
import { sh } from './world.ts';

/**
 * Builds the base of the benchmark's image and pushes it. Builders then pull it as gzip layers, like any other base image.
 * @returns its reference
 */
export async function pushBase(registry: string, megabytes: number, folder: string): Promise<string> {
  const context = join(folder, 'base');
  const reference = `${registry}/base:${String(megabytes)}`;
  rmSync(context, { recursive: true, force: true });
  await writeBaseContext(context, megabytes);
  const engine = await startDockerEngine({ store: 'containerd' });
  try {
    const build = ['buildx', 'build', '--network=host', '--provenance=false', '--push', '-t', reference, context];
    await sh(engine.env, 'docker', ...build);
  } finally {
    await engine.stop();
  }
  return reference;
}
