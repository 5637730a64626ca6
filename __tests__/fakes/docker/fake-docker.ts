import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { engineApiServer } from './api.ts';
import { type Call, runCommand } from './commands.ts';
import { FakeImages } from './images.ts';
import type { FakeState } from './state.ts';

/** A fake runner. Its engine is in this process: an API socket, and `docker` and `podman` as its clients. */
export interface FakeDocker {
  /** Environment variables: PATH with the clients first, and the engine's socket. */
  readonly env: Readonly<Record<string, string>>;
  readonly directory: string;
  state(): FakeState;
  set(change: Partial<FakeState>): void;
  remove(): Promise<void>;
}

const client = fileURLToPath(new URL('client.cjs', import.meta.url));
// Node keeps the compiled client here (nodejs.org/api/module.html, "Module compile cache").
const cache = fileURLToPath(new URL('../../../build/compile-cache', import.meta.url));

export async function fakeDocker(initial: Partial<FakeState> = {}): Promise<FakeDocker> {
  const directory = await mkdtemp(join(tmpdir(), 'fake-docker-'));
  const images = new FakeImages(initial);
  const bin = join(directory, 'bin');
  const commandSocket = join(directory, 'commands.sock');
  const apiSocket = join(directory, 'docker.sock');
  await mkdir(bin);
  for (const program of ['docker', 'podman']) {
    const command = join(bin, program);
    const script = `#!${process.execPath}\nrequire('node:module').enableCompileCache(${JSON.stringify(cache)});\nrequire(${JSON.stringify(client)})(${JSON.stringify(commandSocket)}, '${program}');\n`;
    await writeFile(command, script);
    await chmod(command, 0o755);
  }
  const open = new Set<Socket>();
  const listening = async (server: Server, path: string): Promise<Server> => {
    server.on('connection', (socket) => {
      open.add(socket);
      socket.on('close', () => open.delete(socket)).on('error', () => undefined);
    });
    await once(server.listen(path), 'listening');
    return server;
  };
  const servers = [
    await listening(
      createServer({ allowHalfOpen: true }, (socket) => void serve(images, socket)),
      commandSocket,
    ),
  ];
  if (initial.fail !== 'info' && initial.fail !== 'podman-docker')
    servers.push(await listening(engineApiServer(images), apiSocket));
  return {
    env: {
      PATH: `${bin}:/usr/bin:/bin`,
      DOCKER_HOST: `unix://${apiSocket}`,
      DOCKER_CONFIG: directory,
      FAKE_DOCKER: directory,
    },
    directory,
    state: () => images.state,
    set: (change) => {
      images.set(change);
    },
    remove: async () => {
      for (const socket of open) socket.destroy();
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Runs the command that a client sends. */
async function serve(images: FakeImages, socket: Socket): Promise<void> {
  const { program, args } = await headerOf(socket);
  const ended = new AbortController();
  socket.on('close', () => {
    ended.abort();
  });
  const send = (channel: number, bytes: string | Buffer): void => {
    const content = Buffer.from(bytes);
    const header = Buffer.alloc(5);
    header.writeUInt8(channel);
    header.writeUInt32BE(content.length, 1);
    if (!socket.destroyed) socket.write(Buffer.concat([header, content]));
  };
  const code = await runCommand(images, {
    program,
    args,
    stdin: socket,
    out: (bytes) => {
      send(1, bytes);
    },
    err: (line) => {
      send(2, `${line}\n`);
    },
    signal: ended.signal,
  });
  send(0, String(code));
}

/** Reads the first line and leaves the rest unread. */
async function headerOf(socket: Socket): Promise<Pick<Call, 'program' | 'args'>> {
  let head = Buffer.alloc(0);
  while (!head.includes(10)) {
    const part: Buffer | null = socket.read();
    if (part === null) await once(socket, 'readable');
    else head = Buffer.concat([head, part]);
  }
  const end = head.indexOf(10);
  if (head.length > end + 1) socket.unshift(head.subarray(end + 1));
  const header: Pick<Call, 'program' | 'args'> = JSON.parse(head.subarray(0, end).toString());
  return header;
}
