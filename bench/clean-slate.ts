import type { DockerEngine } from '../dev/docker-engine.ts';
import { type Arena, buildArguments } from './contenders.ts';
import { sh } from './world.ts';

/** Builds again without a cache, but compresses nothing yet. */
export async function buildAnew({ engine, context }: Arena): Promise<void> {
  await sh(engine.env, 'docker', 'builder', 'prune', '-af');
  await sh(engine.env, 'docker', ...buildArguments(context, '--output', 'type=cacheonly'));
}

/** Empties a consumer's engine. */
export async function emptyEngine(engine: DockerEngine): Promise<void> {
  const ids = (await sh(engine.env, 'docker', 'image', 'ls', '-aq')).trim();
  if (ids !== '') await sh(engine.env, 'docker', 'image', 'rm', '-f', ...new Set(ids.split('\n')));
  await sh(engine.env, 'docker', 'system', 'prune', '-af');
}
