import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type DockerCli, dockerCli } from '../../shared/docker/cli.ts';
import { dockerEngine } from '../../shared/docker/engine.ts';

const directory = mkdtempSync(join(tmpdir(), 'output-'));
const pathBefore = process.env['PATH'] ?? '';
let abort: AbortController;
let cli: DockerCli;
beforeEach(() => {
  abort = new AbortController();
  cli = dockerCli(abort.signal);
});
afterEach(() => void (process.env['PATH'] = pathBefore));
afterAll(() => rmSync(directory, { recursive: true }));

/** Puts a program called docker in front of all others. */
function fakeDocker(script: string): void {
  writeFileSync(join(directory, 'docker'), `#!/bin/sh\n${script}\n`);
  chmodSync(join(directory, 'docker'), 0o755);
  process.env['PATH'] = `${directory}${delimiter}${pathBefore}`;
}

async function digestOf(chunks: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of chunks) {
    hash.update(chunk);
    // Time for the command to write more, which must not come into this chunk.
    if (chunk.length % 7 === 0) await sleep(1);
  }
  return hash.digest('hex');
}

const newRoot = (name: string): string => {
  const root = join(directory, name);
  mkdirSync(root, { recursive: true });
  return root;
};

describe('what docker save writes', () => {
  test.each([
    ['', ''],
    ['where the folder’s path is too long for a socket', 'long-'.repeat(30)],
  ])('comes out byte by byte %s', async (_, rootName) => {
    const file = join(directory, 'bytes');
    const bytes = Buffer.alloc(5_000_001, 'not all the same ');
    bytes.writeUInt32LE(123456, 2_000_000);
    writeFileSync(file, bytes);
    // Pieces of many sizes.
    fakeDocker(`cat ${file} | dd bs=4000 status=none | dd ibs=70001 obs=33333 status=none`);
    const root = newRoot(rootName);
    const digest = await digestOf(dockerEngine(cli, root).save('charon:local'));
    expect(digest).toBe(createHash('sha256').update(readFileSync(file)).digest('hex'));
    expect(readdirSync(root).filter((name) => name.startsWith('image-handover-'))).toEqual([]);
  });

  test('is read into the same memory again and again', async () => {
    fakeDocker('head -c 3000000 /dev/zero');
    const memory = new Set<ArrayBufferLike>();
    let bytes = 0;
    for await (const chunk of dockerEngine(cli, newRoot('same')).save('charon:local')) {
      memory.add(chunk.buffer);
      bytes += chunk.length;
    }
    expect([memory.size, bytes]).toEqual([1, 3_000_000]);
  });

  test.each([
    ['nothing at all', 'echo "No such image" >&2; exit 1'],
    ['half of it', 'head -c 300000 /dev/zero; echo "No such image" >&2; exit 1'],
  ])('%s, and a failure: the failure counts', async (_, script) => {
    fakeDocker(script);
    await expect(digestOf(dockerEngine(cli, newRoot('failing')).save('charon:local'))).rejects.toMatchObject({
      code: 'image-not-found',
      message: 'docker save charon:local failed with exit code 1: No such image',
    });
  });

  test('no more is read than is asked for, and the command is ended when nobody wants more', async () => {
    const ended = join(directory, 'ended');
    fakeDocker(`head -c 20000000 /dev/zero; touch ${ended}`);
    for await (const chunk of dockerEngine(cli, newRoot('early')).save('charon:local')) {
      await sleep(200);
      expect(chunk.length).toBeGreaterThan(0);
      expect(existsSync(ended)).toBe(false);
      break;
    }
    expect(existsSync(ended)).toBe(false);
  });

  test('a cancelled job ends the command', async () => {
    fakeDocker('head -c 1000 /dev/zero; exec sleep 60');
    const save = digestOf(dockerEngine(cli, newRoot('cancelled')).save('charon:local'));
    setTimeout(() => {
      abort.abort();
    }, 100);
    await expect(save).rejects.toMatchObject({ code: 'image-not-found' });
  });

  test('without docker the error says so, and nothing is left open', async () => {
    process.env['PATH'] = newRoot('empty');
    await expect(digestOf(dockerEngine(cli, newRoot('none')).save('charon:local'))).rejects.toMatchObject({
      code: 'docker-unavailable',
    });
  });
});
