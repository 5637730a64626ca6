import type { EngineName } from '../image/host.ts';
import { engineApi } from './api.ts';
import { apiEngine } from './api-engine.ts';
import { dockerCli } from './cli.ts';
import { deadlines } from './deadlines.ts';
import { type DockerSettings, engineEndpoint } from './endpoint.ts';
import { commandEngine, type Engine } from './engine.ts';
import { podmanEngine } from './podman-engine.ts';

export interface EngineSettings extends DockerSettings {
  /** Folder for podman's temporary files. */
  readonly tempRoot: string;
}

/**
 * The engine that the input `engine` names: podman by its command; Docker over its API where that can be reached, else by its
 * command.
 * @param signal ends work under way when it is aborted
 */
export async function containerEngine(
  name: EngineName,
  settings: EngineSettings,
  signal: AbortSignal,
): Promise<Engine> {
  const cli = dockerCli(signal, name);
  if (name === 'podman') return podmanEngine(cli, settings.tempRoot);
  const endpoint = await engineEndpoint(settings);
  return endpoint === undefined ? commandEngine(cli) : apiEngine(engineApi(endpoint, deadlines(signal, name)), cli);
}
