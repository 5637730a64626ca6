import { dockerCli } from './cli.ts';
import type { EngineName } from '../image/host.ts';
import { dockerEngine, type Engine } from './engine.ts';
import { podmanEngine } from './podman-engine.ts';

/**
 * The engine that the input `engine` names.
 * @param tempRoot folder for podman's temporary files
 * @param signal ends running commands when it is aborted
 */
export function containerEngine(name: EngineName, tempRoot: string, signal: AbortSignal): Engine {
  const cli = dockerCli(signal, name);
  return name === 'podman' ? podmanEngine(cli, tempRoot) : dockerEngine(cli);
}
