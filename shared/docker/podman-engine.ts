import { HandoverError } from '../base/errors.ts';
import { makeTempDir } from '../bytes/files.ts';
import { type DockerCli, lastLine } from './cli.ts';
import { type Engine, inspectWith, loadInto, must, references, removeReference } from './engine.ts';
import type { EngineInfo } from './output.ts';
import { parsePodmanInfo, parsePodmanInspect, podmanName } from './podman-output.ts';
import { saveFrom } from './save-image.ts';
import { requireSupportedEngine } from './supported-engine.ts';

/**
 * Podman as an engine. It works without a daemon: its temporary files are ours to clear away when it is killed.
 * @param tempRoot folder for them; loading needs up to twice the tarball's size there
 */
export function podmanEngine(cli: DockerCli, tempRoot: string): Engine {
  return {
    program: cli.program,
    nameOf: podmanName,
    info: () => info(cli),
    inspect: (image) => inspectWith(cli, ['image', 'inspect', image], parsePodmanInspect),
    load: (chunks, onLoaded) => load(cli, tempRoot, chunks, onLoaded),
    // It takes whole tarballs only.
    pull: undefined,
    save: (image) => save(cli, tempRoot, image),
    tag: async (image, reference) => {
      await must(cli, ['image', 'tag', image, podmanName(reference)], 'load-failed');
    },
    untag: (reference) => removeReference(cli, podmanName(reference)),
    references: () => references(cli),
  };
}

async function info(cli: DockerCli): Promise<EngineInfo> {
  const output = await cli.query(['info', '--format', 'json']);
  const parsed = output.exitCode === 0 ? parsePodmanInfo(output.stdout) : undefined;
  if (parsed !== undefined) return requireSupportedEngine(parsed);
  throw new HandoverError(
    'docker-unavailable',
    `Podman doesn't answer: ${lastLine(output) || `podman info exited with ${String(output.exitCode)}`}`,
    'Run podman info in a step before, and repair what it says.',
  );
}

async function load(
  cli: DockerCli,
  tempRoot: string,
  chunks: AsyncIterable<Buffer>,
  onLoaded: (loaded: string) => void,
): Promise<readonly string[]> {
  await using temp = await makeTempDir(tempRoot);
  return await loadInto(cli, chunks, onLoaded, temp.path);
}

// The Docker format keeps the config as it is; from an image of that format, `oci-archive` would make another config
// (without its health check), and so another image.
async function* save(cli: DockerCli, tempRoot: string, image: string): AsyncGenerator<Buffer> {
  await using temp = await makeTempDir(tempRoot);
  yield* saveFrom(cli, ['save', '--format', 'docker-archive', image], temp.path);
}
