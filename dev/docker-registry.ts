import { type ChildProcess, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { dockerParts } from './docker-packages.ts';
import { freePort } from './free-port.ts';
import { endChild, spawnOwn, whenWeEnd } from './own-processes.ts';

/** A registry of our own on the loopback interface. */
export interface Registry {
  /** `127.0.0.1:<port>`: docker takes such an address without TLS. */
  readonly address: string;
  stop(): Promise<void>;
}

export interface Login {
  readonly user: string;
  readonly password: string;
}

/** Starts it with an empty storage. Anybody may push and pull, unless a login is given. */
export async function startRegistry(login?: Login): Promise<Registry> {
  const { path } = await dockerParts();
  const root = mkdtempSync(join(tmpdir(), 'ih-registry-'));
  const remove = (): void => rmSync(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  const address = `127.0.0.1:${String(await freePort())}`;
  const config = join(root, 'config.yml');
  const storage = `storage:\n  filesystem:\n    rootdirectory: ${join(root, 'data')}\n  delete:\n    enabled: true\n`;
  const http = `http:\n  addr: ${address}\n`;
  writeFileSync(config, `version: 0.1\nlog:\n  level: error\n${storage}${http}${authentication(root, login)}`);
  const child = spawnOwn('docker-registry', ['serve', config], {
    env: { ...process.env, PATH: path },
    stdio: 'ignore',
  });
  const forget = whenWeEnd(() => {
    child.kill('SIGKILL');
    remove();
  });
  const stop = async (): Promise<void> => {
    await endChild(child, 5000);
    forget();
    remove();
  };
  try {
    await answering(`http://${address}/v2/`, child);
  } catch (error) {
    await stop();
    throw error;
  }
  return { address, stop };
}

function authentication(root: string, login: Login | undefined): string {
  if (login === undefined) return '';
  const file = join(root, 'htpasswd');
  // The registry takes bcrypt only, which Node doesn't have; every Debian's perl has it from the C library.
  const salt = `$2b$05$${randomBytes(16).toString('hex').slice(0, 22)}`;
  const hash = execFileSync('perl', ['-e', 'print crypt($ARGV[0], $ARGV[1])', login.password, salt]).toString();
  writeFileSync(file, `${login.user}:${hash}\n`);
  return `auth:\n  htpasswd:\n    realm: test\n    path: ${file}\n`;
}

async function answering(url: string, child: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 100 && child.exitCode === null; tries += 1) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok === true || answer?.status === 401) return;
    await sleep(100);
  }
  throw new Error('The registry did not get ready. Is docker-registry installed?');
}
