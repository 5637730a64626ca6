import { text } from 'node:stream/consumers';
import { HandoverError } from '../base/errors.ts';
import { type CliOutput, type DockerCli, lastLine } from './cli.ts';
import { engineSocket, savedByEngine } from './engine-socket.ts';
import { failedCommand } from './failed-command.ts';

/** The bytes of `docker save`, each chunk valid until the next is asked for. Throws `image-not-found` while iterating. */
export async function* saveImage(cli: DockerCli, image: string): AsyncGenerator<Buffer> {
  const socket = await engineSocket(cli);
  const saved = socket === undefined ? undefined : await savedByEngine(socket, image, cli.signal);
  yield* saved ?? saveFrom(cli, ['save', image]);
}

/** What a save command writes. Throws `image-not-found` while iterating. */
export async function* saveFrom(cli: DockerCli, args: readonly string[], tempDir?: string): AsyncGenerator<Buffer> {
  const running = await cli.start(args, tempDir);
  const said = text(running.stderr);
  running.stdin.end();
  let finished = false;
  try {
    const stdout: AsyncIterable<Buffer> = running.stdout;
    yield* stdout;
    const exitCode = await running.exit;
    finished = true;
    if (exitCode !== 0) throw failedSave(cli, args, { exitCode, stdout: '', stderr: await said });
  } finally {
    if (!finished) running.kill();
    await running.exit;
  }
}

function failedSave(cli: DockerCli, args: readonly string[], output: CliOutput): HandoverError {
  // moby layer/empty.go: the classic store has no content for an image without layers.
  if (!output.stderr.includes('empty export')) return failedCommand(cli, 'image-not-found', args, output);
  return new HandoverError(
    'unsupported-host',
    `The classic image store of this engine can't save an image without layers (FROM scratch and only LABEL, ENV or the like): ${lastLine(output)}`,
    'Let export-image build it, with `- uses: docker/setup-buildx-action@v4` before it: then the image never passes ' +
      'through that store. Or use an engine with the containerd image store.',
  );
}
