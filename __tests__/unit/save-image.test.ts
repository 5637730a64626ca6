import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type DockerCli, dockerCli } from '../../shared/docker/cli.ts';
import { commandEngine } from '../../shared/docker/engine.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';
import { tarHeader } from '../../shared/tar/header.ts';

const directory = mkdtempSync(join(tmpdir(), 'save-'));
const pathBefore = process.env['PATH'] ?? '';
let abort: AbortController;
let cli: DockerCli;
beforeEach(() => {
  abort = new AbortController();
  cli = dockerCli(abort.signal);
});
afterEach(() => void (process.env['PATH'] = pathBefore));
afterAll(() => rmSync(directory, { recursive: true }));

/** Puts a program called docker first in the PATH. */
function fakeDocker(script: string): void {
  writeFileSync(join(directory, 'docker'), `#!/bin/sh\n${script}\n`);
  chmodSync(join(directory, 'docker'), 0o755);
  process.env['PATH'] = `${directory}${delimiter}${pathBefore}`;
}

const save = (): AsyncIterable<Buffer> => commandEngine(cli).save('charon:local');

async function* cancelledChunks(): AsyncGenerator<Buffer> {
  yield Buffer.alloc(1000);
  await once(abort.signal, 'abort');
  // The command has ended by then.
  await sleep(100);
  abort.signal.throwIfAborted();
}

async function digestOf(chunks: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of chunks) hash.update(chunk);
  return hash.digest('hex');
}

describe('saving an image', () => {
  test('returns the command’s output byte for byte', async () => {
    const bytes = Buffer.alloc(5_000_001, 'not all the same ');
    bytes.writeUInt32LE(123456, 2_000_000);
    writeFileSync(join(directory, 'bytes'), bytes);
    fakeDocker(`cat ${join(directory, 'bytes')}`);
    expect(await digestOf(save())).toBe(createHash('sha256').update(bytes).digest('hex'));
  });
});

describe('failures while an image is saved', () => {
  test.each([
    ['no output', 'echo "No such image" >&2; exit 1'],
    ['half of the output', 'head -c 300000 /dev/zero; echo "No such image" >&2; exit 1'],
  ])('%s from the command before it fails is a failure', async (_, script) => {
    fakeDocker(script);
    await expect(digestOf(save())).rejects.toMatchObject({
      code: 'image-not-found',
      message: 'docker save charon:local failed with exit code 1: No such image',
    });
  });

  test('a command that ends between two entries with exit code 0 is detected', async () => {
    writeFileSync(join(directory, 'header'), tarHeader('index.json', 0));
    fakeDocker(`cat ${join(directory, 'header')}`);
    const layout = join(directory, 'layout');
    await expect(writeOciLayout(save(), layout, { format: 'zstd', level: undefined })).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: 'The tarball is not a whole tar archive: its end is missing.',
    });
  });

  test('a command that ends in the middle of an entry with exit code 0 is detected', async () => {
    writeFileSync(
      join(directory, 'part'),
      Buffer.concat([tarHeader('blobs/sha256/x', 400_000), Buffer.alloc(300_000)]),
    );
    fakeDocker(`cat ${join(directory, 'part')}`);
    await expect(
      writeOciLayout(save(), join(directory, 'lost'), { format: 'zstd', level: undefined }),
    ).rejects.toMatchObject({ code: 'tarball-invalid' });
  });

  test('only the requested bytes are read from the command, and it is ended when its reader stops', async () => {
    const ended = join(directory, 'ended');
    // The file is touched only when everything has been read: head ends with its reader.
    fakeDocker(`head -c 20000000 /dev/zero && touch ${ended}`);
    for await (const chunk of save()) {
      await sleep(200);
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect(existsSync(ended)).toBe(false);
  });

  test('a cancelled job ends the command', async () => {
    fakeDocker('head -c 1000 /dev/zero; exec sleep 60');
    setTimeout(() => {
      abort.abort();
    }, 100);
    await expect(digestOf(save())).rejects.toMatchObject({ code: 'image-not-found' });
  });

  test.each([
    ['save', () => digestOf(save()), 'Premature close'],
    ['load', () => commandEngine(cli).load(cancelledChunks()), 'cancelled'],
  ])('a %s is cancelled with one error, even if a process keeps the streams of the command', async (_, work, error) => {
    const pid = join(directory, 'pid');
    fakeDocker(`sleep 60 & echo $! > ${pid}; exec sleep 60`);
    setTimeout(() => {
      abort.abort(new Error('cancelled'));
    }, 100);
    await expect(work()).rejects.toThrow(error);
    // An unhandled rejection would fail this test.
    await sleep(50);
    process.kill(Number(readFileSync(pid, 'utf8')));
  });

  test('the error without docker shows that docker is missing', async () => {
    const empty = join(directory, 'empty');
    mkdirSync(empty);
    process.env['PATH'] = empty;
    await expect(digestOf(save())).rejects.toMatchObject({ code: 'docker-unavailable' });
  });
});
