import { execFileSync, spawnSync } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { appendFileSync, cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dockerParts } from './docker-packages.ts';

// Builds base images from a static busybox, because tests can't pull any.

/** Writes a root filesystem like that of `FROM busybox`. */
export async function writeRootFilesystem(directory: string): Promise<void> {
  const bin = join(directory, 'bin');
  mkdirSync(bin, { recursive: true });
  mkdirSync(join(directory, 'tmp'), { recursive: true });
  cpSync(await busybox(), join(bin, 'busybox'));
  for (const applet of execFileSync(join(bin, 'busybox'), ['--list']).toString().trim().split('\n')) {
    if (applet !== 'busybox') symlinkSync('busybox', join(bin, applet));
  }
}

/** Writes a build context of a busybox image, for images that need `RUN`. */
export async function writeBusyboxContext(directory: string): Promise<void> {
  await writeRootFilesystem(join(directory, 'rootfs'));
  writeFileSync(
    join(directory, 'Dockerfile'),
    'FROM scratch\nCOPY rootfs /\nRUN mkdir -p /etc && echo built > /etc/built\nCMD ["sh"]\n',
  );
}

async function busybox(): Promise<string> {
  const { unpacked } = await dockerParts();
  const found = [
    ...(unpacked === undefined ? [] : [join(unpacked, 'usr/bin/busybox')]),
    '/usr/bin/busybox',
    '/bin/busybox',
  ];
  const path = found.find((candidate) => existsSync(candidate) && isStatic(candidate));
  if (path === undefined) throw new Error('Static busybox is missing: apt-get install busybox-static');
  return path;
}

function isStatic(path: string): boolean {
  return !/ld-linux|ld-musl/.test(spawnSync('head', ['-c', '4096', path]).stdout.toString('latin1'));
}

export interface LargeImage {
  /** Approximate size of the unpacked image in MB. */
  readonly megabytes: number;
  readonly smallFiles: number;
  /** Reference of a `writeBaseContext` image in a registry. Without it, the base is built as well. */
  readonly base?: string;
}

/**
 * Writes a build context of a realistic image: a base, tens of thousands of small files as in node_modules, binaries, and data
 * that can't be compressed.
 */
export async function writeLargeContext(directory: string, { megabytes, smallFiles, base }: LargeImage): Promise<void> {
  await writeRootFilesystem(join(directory, 'rootfs'));
  const random = Math.round(megabytes * 0.25);
  const perFile = Math.max(200, Math.round((megabytes * 0.3 * 1e6) / smallFiles));
  writeFileSync(join(directory, 'files.awk'), smallFileProgram);
  writeFileSync(join(directory, 'app.txt'), 'the application\n');
  writeNoise(join(directory, 'data'), random);
  writeFileSync(
    join(directory, 'Dockerfile'),
    [
      ...(base === undefined ? baseStage(megabytes) : [`FROM ${base} AS base`]),
      'FROM base AS modules',
      'COPY files.awk /',
      `RUN mkdir -p /app/node_modules && awk -v count=${String(smallFiles)} -v size=${String(perFile)} -f /files.awk`,
      'FROM base',
      'COPY --from=modules /app /app',
      'COPY data /opt/data',
      'COPY app.txt /app/app.txt',
      'LABEL org.opencontainers.image.revision=0123456789abcdef0123456789abcdef01234567',
      'CMD ["cat", "/app/app.txt"]',
      '',
    ].join('\n'),
  );
}

/** Writes a build context of only that base: a small system and binaries. */
export async function writeBaseContext(directory: string, megabytes: number): Promise<void> {
  await writeRootFilesystem(join(directory, 'rootfs'));
  writeFileSync(join(directory, 'Dockerfile'), [...baseStage(megabytes), ''].join('\n'));
}

function baseStage(megabytes: number): readonly string[] {
  const binaries = Math.round(megabytes * 0.45);
  const copies = `i=0; while [ $i -lt ${String(binaries)} ]; do cat /bin/busybox; i=$((i+1)); done`;
  return [
    'FROM scratch AS system',
    'COPY rootfs /',
    'FROM system AS binaries',
    `RUN mkdir -p /opt && (${copies}) | head -c ${String(binaries)}000000 > /opt/tool`,
    'FROM system AS base',
    'COPY --from=binaries /opt/tool /opt/tool',
  ];
}

/** Writes a file that can't be compressed: the key stream of a cipher, determined by the seed. */
export function writeNoise(file: string, megabytes: number, seed = 1): void {
  const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, seed), Buffer.alloc(16));
  const zeros = Buffer.alloc(1e6);
  writeFileSync(file, '');
  for (let done = 0; done < megabytes; done += 1) appendFileSync(file, cipher.update(zeros));
}

// Text that compresses like source code, in folders of a hundred files.
const smallFileProgram = [
  'BEGIN {',
  '  srand(1);',
  '  for (i = 0; i < count; i++) {',
  '    folder = "/app/node_modules/package-" int(i / 100);',
  '    if (i % 100 == 0) system("mkdir -p " folder);',
  '    file = folder "/module-" i ".js";',
  '    text = "";',
  '    while (length(text) < size) text = text "export const value" int(rand() * 100000) " = " rand() ";\\n";',
  '    print text > file;',
  '    close(file);',
  '  }',
  '}',
  '',
].join('\n');
