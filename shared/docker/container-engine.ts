import { HandoverError } from '../base/errors.ts';
import { stringOr } from '../base/json.ts';
import type { LentChunks } from '../bytes/chunks.ts';
import type { EngineName } from '../image/host.ts';
import { type EngineAnswer, type EngineApi, engineApi } from './api.ts';
import { type DockerCli, dockerCli, failedCommand, failedWork, type FailureCode, refusePodman } from './cli.ts';
import { type Deadlines, deadlines } from './deadlines.ts';
import { type DockerSettings, type Endpoint, engineEndpoint } from './endpoint.ts';
import {
  commandEngine,
  emptyTarball,
  type Engine,
  inspectArgs,
  podmanEngine,
  pullWatched,
  requireSupportedEngine,
  type PullWatch,
} from './engine.ts';
import {
  type EngineInfo,
  type InspectedImage,
  parseImages,
  parseInfo,
  parseInspect,
  parseLoadOutput,
  saysNoSuchImage,
} from './output.ts';

/**
 * Returns the engine of the input `engine`: podman by its command; Docker over its API, or by its command where that can't be reached.
 * @param settings `tempRoot` is the folder for podman's temporary files
 */
export async function containerEngine(
  name: EngineName,
  settings: DockerSettings & { readonly tempRoot: string },
  signal: AbortSignal,
): Promise<Engine> {
  const cli = dockerCli(signal, name);
  switch (name) {
    case 'podman':
      return podmanEngine(cli, settings.tempRoot);
    case 'docker': {
      const endpoint = await engineEndpoint(settings);
      return endpoint === undefined ? commandEngine(cli) : apiEngine(endpoint, deadlines(signal, name), cli);
    }
  }
}

/** Docker over its API. The command does the last inspect, and the save: a process costs little compared with the bytes of an image. */
function apiEngine(endpoint: Endpoint, times: Deadlines, cli: DockerCli, agreed: { version?: string } = {}): Engine {
  const api = engineApi(endpoint, times, agreed);
  const cleanUp = engineApi(endpoint, times.forCleanUp, agreed);
  return {
    ...commandEngine(cli),
    get forCleanUp() {
      return apiEngine(endpoint, times.forCleanUp, cli.forCleanUp, agreed);
    },
    info: async () => {
      await cli.available();
      const answer = await api.ask({ method: 'GET', path: '/info' }).catch(async (error: unknown) => {
        await refusePodman(cli);
        throw error;
      });
      // Only podman's API returns this (containers/podman, pkg/api/handlers/types.go). Docker's command can use that API.
      if (!answer.ok || answer.text.includes('"BuildahVersion"')) await refusePodman(cli);
      return info(answer);
    },
    inspect: async (image) => {
      // `docker image inspect` can't return the image's manifests.
      const answer = await api.ask({ method: 'GET', path: `${pathOf(image)}/json`, query: { manifests: '1' } });
      if (!answer.ok && saysNoSuchImage(answer.message)) return undefined;
      const command = `image inspect ${image}`;
      return parseInspect(must(answer, 'image-missing', command)) ?? unreadable(command);
    },
    confirm: (references) => confirm(cli, references),
    load: (chunks) => load(api, chunks),
    pull: (reference, registry) => pull(api, reference, registry),
    tag: async (image, reference) => {
      const [, repo = '', tag = ''] = /^(.*):([^/:]+)$/.exec(reference) ?? [undefined, reference];
      const answer = await api.ask({ method: 'POST', path: `${pathOf(image)}/tag`, query: { repo, tag } });
      must(answer, 'load-failed', `image tag ${image} ${reference}`);
    },
    untag: (reference) => untag(cleanUp, reference),
    release: (reference) => release(cleanUp, reference),
    images: async () => {
      const answer = await api.ask({ method: 'GET', path: '/images/json', query: { all: '1', digests: '1' } });
      return parseImages(must(answer, 'image-missing', 'image ls')) ?? unreadable('image ls');
    },
  };
}

/** Returns the path of an image, by a name with slashes. */
function pathOf(name: string): string {
  return `/images/${name.split('/').map(encodeURIComponent).join('/')}`;
}

/** Returns the text of an answer. Throws `code` for a refusal. */
function must(answer: EngineAnswer, code: FailureCode, command: string): string {
  if (answer.ok) return answer.text;
  throw failedWork('docker', code, `docker ${command} failed`, answer.message);
}

function info(answer: EngineAnswer): EngineInfo {
  const parsed = answer.ok ? parseInfo(answer.text) : undefined;
  if (parsed !== undefined) return requireSupportedEngine(parsed);
  throw new HandoverError(
    'docker-unavailable',
    `No Docker engine answers: ${answer.ok ? 'its answer to `docker info` can’t be read' : answer.message}.`,
    'Run `docker info` in an earlier step, and fix what it reports.',
  );
}

function unreadable(command: string): never {
  throw failedWork('docker', 'image-missing', `docker ${command} failed`, 'the engine’s answer can’t be read');
}

async function confirm(cli: DockerCli, references: readonly string[]): Promise<readonly InspectedImage[]> {
  const args = inspectArgs(...references);
  const output = await cli.query(args);
  const images = output.stdout.split('\n').flatMap((line) => parseInspect(line) ?? []);
  if (output.exitCode === 0 && images.length === references.length) return images;
  // The images that it found are not the cause.
  throw failedCommand(cli, 'image-missing', ['image', 'inspect', ...references], { ...output, stdout: '' });
}

async function load(api: EngineApi, chunks: LentChunks): Promise<readonly string[]> {
  let printed = '';
  const request = { method: 'POST', path: '/images/load', query: { quiet: '1' }, body: chunks } as const;
  const answer = await api.follow(request, ({ stream }) => void (printed += stringOr(stream, '')));
  const { loaded, unpackError } = parseLoadOutput(printed);
  must(answer, 'load-failed', 'load');
  if (unpackError !== undefined) throw failedWork('docker', 'load-failed', 'docker load failed', unpackError);
  return loaded;
}

function pull(api: EngineApi, reference: string, registry: PullWatch): Promise<void> {
  const [fromImage = '', tag = ''] = reference.split('@');
  return pullWatched(registry, async (signal) => {
    const request = { method: 'POST', path: '/images/create', query: { fromImage, tag }, signal } as const;
    const answer = await api.follow(request).catch((error: unknown) => {
      if (!signal.aborted) throw error;
      return { ok: false, message: '' } as const;
    });
    return answer.ok ? undefined : answer.message;
  });
}

async function untag(api: EngineApi, reference: string): Promise<void> {
  const answer = await api.ask({ method: 'DELETE', path: pathOf(reference) });
  if (!answer.ok && saysNoSuchImage(answer.message)) return;
  must(answer, 'image-missing', `image rm ${reference}`);
}

// The API can't remove the last tag of an image without the image. So an empty image gets the tag first.
async function release(api: EngineApi, reference: string): Promise<void> {
  const query = { fromSrc: '-', repo: reference };
  const request = { method: 'POST', path: '/images/create', query, body: emptyTarball() } as const;
  const answer = await api.follow(request);
  must(answer, 'image-missing', `import - ${reference}`);
  await untag(api, reference);
}
