import { cpSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { type FakeImages, noSuchImage, Refusal } from './images.ts';

/** A call to docker or podman. */
export interface Call {
  /** podman behaves like podman 4 in Debian's package. */
  readonly program: 'docker' | 'podman';
  readonly args: readonly string[];
  readonly stdin: Readable;
  readonly out: (bytes: string | Buffer) => void;
  readonly err: (line: string) => void;
  /** Aborted when the caller exits. */
  readonly signal: AbortSignal;
}

/** Fails a command with a message and an exit code. */
class Exit extends Error {
  readonly code: number;

  constructor(message: string, code = 1) {
    super(message);
    this.code = code;
  }
}

/** Runs a docker or podman command on the engine. Returns its exit code. */
export async function runCommand(images: FakeImages, call: Call): Promise<number> {
  const { program, args, err, signal } = call;
  images.called(program === 'podman' ? [program, ...args] : args);
  try {
    if (images.state.fail === 'hang-info') await sleep(30_000, undefined, { signal });
    await run(images, call);
    return 0;
  } catch (error) {
    if (error instanceof Refusal) {
      err(program === 'podman' ? podmanMessage(error, args) : `Error response from daemon: ${error.message}`);
      return program === 'podman' && error.status === 404 ? 125 : 1;
    }
    err(error instanceof Error ? error.message : String(error));
    return error instanceof Exit ? error.code : 1;
  }
}

function podmanMessage(refusal: Refusal, args: readonly string[]): string {
  return refusal.status === 404 ? `Error: ${args.at(-1) ?? ''}: image not known` : refusal.message;
}

async function run(images: FakeImages, call: Call): Promise<void> {
  const { program, args, stdin, out } = call;
  const [command = '', verb = ''] = args;
  const last = args.at(-1) ?? '';
  const isPodman = program === 'podman';
  if (images.state.fail === 'podman-docker' && command === '--version') out('podman version 5.4.2\n');
  else if (command === 'info') info(images, call);
  else if (command === 'buildx' && verb === 'inspect') inspectBuilder(images, call);
  else if (command === 'buildx' && verb === 'build') await build(images, call);
  else if (command === 'buildx' && verb === 'imagetools') readManifest(images, call, last);
  else if (command === 'push') push(images, call, last);
  else if (command === 'pull' && last.startsWith('127.0.0.1:')) await images.fetch(last, () => undefined);
  else if (command === 'pull') images.pull(last);
  else if (command === 'load')
    await images.load(stdin, isPodman, (line) => {
      out(`${line}\n`);
    });
  else if (command === 'save') out(readFileSync(images.state.saved ?? ''));
  else if (command === 'import') {
    await buffer(stdin);
    out(`${images.importEmpty(args[2] ?? '')}\n`);
  } else if (command === 'image' && verb === 'inspect') inspect(images, call);
  else if (command === 'image' && verb === 'tag') images.tag(args[2] ?? '', args[3] ?? '', isPodman);
  else if (command === 'image' && verb === 'rm') images.remove(args[2] ?? '', isPodman);
  else if (command === 'image' && verb === 'untag' && isPodman) images.remove(args[3] ?? '', isPodman);
  else if (command === 'image' && verb === 'ls') list(images, call);
  else throw new Exit(`unknown docker command: ${args.join(' ')}`, 125);
}

function info(images: FakeImages, { program, out }: Call): void {
  const { state } = images;
  const fails = state.fail === 'info';
  if (program === 'podman') {
    if (fails) throw new Exit('Error: mount /var/lib/containers/storage/overlay: operation not permitted', 125);
    const arch = state.architecture === 'x86_64' ? 'amd64' : state.architecture;
    const host = { arch, os: 'linux', hostname: 'away' };
    const store = { graphRoot: '/var/lib/containers/storage' };
    out(JSON.stringify({ host, store, version: { Version: '4.3.1' } }, undefined, 2));
    return;
  }
  out(`${JSON.stringify(fails ? { ServerErrors: ['Cannot connect'] } : images.info())}\n`);
  if (fails) {
    throw new Exit('Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?');
  }
}

function inspect(images: FakeImages, { program, args, out, err }: Call): void {
  if (program === 'podman') {
    out(`${JSON.stringify([images.inspect(args.at(-1) ?? '', true, false)])}\n`);
    return;
  }
  // Like docker, prints the images that it finds and then fails.
  const failures = args.slice(4).flatMap((name) => {
    try {
      if (images.state.fail === 'other-engine') throw noSuchImage(name);
      out(`${JSON.stringify(images.inspect(name, false, false))}\n`);
      return [];
    } catch (error) {
      return [error];
    }
  });
  for (const failure of failures.slice(0, -1)) err(`Error response from daemon: ${String(failure)}`);
  if (failures.length > 0) throw failures.at(-1);
}

function list(images: FakeImages, { out }: Call): void {
  for (const { imageId, tags, pinned = [] } of images.state.images) {
    const line = (name: string, digest: string): void => {
      out(`${name} ${digest} ${imageId}\n`);
    };
    for (const name of tags) line(name, '<none>');
    for (const name of pinned) line(`${name.split('@')[0] ?? ''}:<none>`, name.split('@')[1] ?? '');
    if (tags.length + pinned.length === 0) line('<none>:<none>', '<none>');
  }
}

function inspectBuilder({ state }: FakeImages, { args, out }: Call): void {
  // Docker 28.2.
  if (state.fail === 'buildx')
    throw new Exit("docker: unknown command: docker buildx\n\nRun 'docker --help' for more information");
  // Podman 4.3.
  if (state.fail === 'podman-docker')
    throw new Exit(
      "Error: unrecognized command `podman buildx inspect`\nTry 'podman buildx --help' for more information",
    );
  if (state.fail === 'buildx-folder') throw new Exit('ERROR: mkdir /home/runner/.docker/buildx: read-only file system');
  out(`Name:   ${args[2] ?? 'default'}\nDriver: ${state.driver}\n`);
}

async function build(images: FakeImages, { args, err, signal }: Call): Promise<void> {
  const { state } = images;
  if (state.fail === 'builder') {
    // buildx 0.29.
    const vertex = { digest: 'sha256:1', name: '[internal] waiting for connection', started: '2026-11-30T00:13:22Z' };
    const end = { ...vertex, completed: '2026-11-30T00:13:42Z', error: 'context deadline exceeded' };
    for (const one of [vertex, end]) err(JSON.stringify({ vertexes: [one] }));
    throw new Exit('ERROR: failed to build: context deadline exceeded');
  }
  state.progress.forEach(err);
  if (state.fail === 'hang-build') await sleep(60_000, undefined, { signal });
  if (state.fail === 'build') {
    throw new Exit(
      'ERROR: failed to build: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2',
    );
  }
  const outputs = args.filter((_, position) => args[position - 1] === '--output').join(' ');
  const directory = /dest=([^",]+)/.exec(outputs)?.[1];
  if (directory !== undefined) {
    // Like BuildKit's client, renames blobs into place: partial blobs are never visible.
    cpSync(state.buildLayout ?? '', `${directory}.part`, { recursive: true });
    renameSync(`${directory}.part`, directory);
    while (state.buildWaitsFor !== undefined && !existsSync(state.buildWaitsFor))
      await sleep(20, undefined, { signal });
  }
  const pushedNames = /"name=([^"]+)"/.exec(outputs)?.[1]?.split(',') ?? [];
  if (outputs.includes('push=true')) buildPushes(images, args, pushedNames, directory, err);
  const idFile = args[args.indexOf('--iidfile') + 1];
  if (args.includes('--iidfile') && idFile !== undefined) {
    writeFileSync(idFile, 'sha256:built');
    const tags = args.filter((_, position) => args[position - 1] === '--tag');
    images.add({ imageId: 'sha256:built', tags, diffIds: [], architecture: 'amd64', labels: {} });
  }
}

function buildPushes(
  images: FakeImages,
  args: readonly string[],
  names: readonly string[],
  directory: string | undefined,
  err: Call['err'],
): void {
  const pushFailure = images.nextFailure();
  if (pushFailure === undefined) {
    const file = args[args.indexOf('--metadata-file') + 1] ?? '';
    writeFileSync(file, JSON.stringify({ 'containerimage.digest': images.state.registry.digest }));
    images.pushed(names);
    return;
  }
  const failure = `failed to push ${String(names[0])}: ${pushFailure}`;
  const times = { started: '2026-01-01T00:00:00Z', completed: '2026-01-01T00:00:01Z' };
  const exporter = { digest: 'sha256:9', name: 'exporting to image', ...times, error: failure };
  err(JSON.stringify({ vertexes: [exporter] }));
  // BuildKit aborts the other output.
  if (directory !== undefined) writeFileSync(`${directory}/index.json`, '');
  throw new Exit(`ERROR: failed to build: failed to solve: ${failure}`);
}

function push(images: FakeImages, { out }: Call, name: string): void {
  const missing = images.find(name) === undefined;
  const failure = missing ? `An image does not exist locally with the tag: ${name}` : images.nextFailure();
  if (failure !== undefined) throw new Exit(failure);
  images.pushed([name]);
  out(`The push refers to repository\n${name}: digest: ${images.state.registry.digest} size: 523\n`);
}

function readManifest({ state }: FakeImages, { out }: Call, name: string): void {
  const manifest = state.registry.manifests[name];
  if (manifest === undefined) throw new Exit(`ERROR: ${name}: not found`);
  out(manifest);
}
