import { copiedBytes, withHead } from '../bytes/chunks.ts';
import type { DockerCli } from './cli.ts';
import { ReusedSocket } from './reused-socket.ts';

const endOfHead = '\r\n\r\n';
const maxHeadBytes = 64 * 1024;

/** The Unix socket of the engine that docker's commands go to; undefined when they go elsewhere (TCP, SSH, podman). */
export async function engineSocket(cli: DockerCli): Promise<string | undefined> {
  const output = await cli.query(['context', 'inspect', '--format', '{{.Endpoints.docker.Host}}']);
  return output.exitCode === 0 ? /^unix:\/\/(\/.*)$/.exec(output.stdout.trim())?.[1] : undefined;
}

/**
 * What `docker save` writes, from the engine itself (Engine API, ImageGet). The command only passes it on, and takes
 * 0.4 s of CPU time per GB for it. A cut end isn't noticed here: whoever reads the tar has to find its end.
 * @returns chunks, each valid until the next is asked for; undefined when the engine has no such answer: `docker save` says why
 */
export async function savedByEngine(
  path: string,
  image: string,
  signal: AbortSignal,
): Promise<AsyncIterable<Buffer> | undefined> {
  return answer(path, `/images/get?names=${encodeURIComponent(image)}`, signal);
}

/**
 * What the engine tells of an image (Engine API, ImageInspect), with the manifests that it stands for: `docker image inspect` can't ask for them.
 * @returns JSON; undefined when the engine has no such answer
 */
export async function inspectedByEngine(path: string, image: string, signal: AbortSignal): Promise<string | undefined> {
  const chunks = await answer(path, `/images/${encodeURIComponent(image)}/json?manifests=1`, signal);
  return chunks === undefined ? undefined : (await copiedBytes(chunks)).toString();
}

/** The body of a plain answer with status 200. */
async function answer(path: string, request: string, signal: AbortSignal): Promise<AsyncIterable<Buffer> | undefined> {
  const socket = new ReusedSocket(path, signal);
  // To HTTP 1.0 the answer has no chunks of its own. Without a version the engine takes its newest.
  socket.write(`GET ${request} HTTP/1.0\r\nHost: docker\r\n\r\n`);
  const isWhole = (head: Buffer): boolean => head.includes(endOfHead) || head.length > maxHeadBytes;
  const answered = await withHead(socket, isWhole).catch(() => undefined);
  const headBytes = answered?.head.indexOf(endOfHead) ?? -1;
  if (answered !== undefined && headBytes >= 0 && isPlain(answered.head.toString('latin1', 0, headBytes))) {
    return without(answered.all, headBytes + endOfHead.length);
  }
  socket.close();
  return undefined;
}

function isPlain(head: string): boolean {
  return /^HTTP\/1\.[01] 200 /.test(head) && !/^transfer-encoding:/im.test(head);
}

async function* without(chunks: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  let left = bytes;
  for await (const chunk of chunks) {
    const rest = chunk.subarray(left);
    left -= chunk.length - rest.length;
    if (rest.length > 0) yield rest;
  }
}
