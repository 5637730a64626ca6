import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { dockerParts } from './docker-packages.ts';
import { freePort } from './free-port.ts';

/** A registry of our own on the loopback interface, without a login. */
export interface Registry {
  /** `127.0.0.1:<port>`: docker takes such an address without TLS. */
  readonly address: string;
  stop(): Promise<void>;
}

export async function startRegistry(): Promise<Registry> {
  const { path } = await dockerParts();
  const root = mkdtempSync(join(tmpdir(), 'ih-registry-'));
  const address = `127.0.0.1:${String(await freePort())}`;
  const config = join(root, 'config.yml');
  const storage = `storage:\n  filesystem:\n    rootdirectory: ${join(root, 'data')}\n  delete:\n    enabled: true\n`;
  writeFileSync(config, `version: 0.1\nlog:\n  level: error\n${storage}http:\n  addr: ${address}\n`);
  const child = spawn('docker-registry', ['serve', config], { env: { ...process.env, PATH: path }, stdio: 'ignore' });
  process.on('exit', () => child.kill('SIGKILL'));
  await answering(`http://${address}/v2/`, child);
  return {
    address,
    stop: async () => {
      if (child.exitCode === null) {
        child.kill('SIGTERM');
        await once(child, 'exit');
      }
      rmSync(root, { recursive: true, force: true });
    },
  };
}

async function answering(url: string, child: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 100 && child.exitCode === null; tries += 1) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok === true) return;
    await sleep(100);
  }
  throw new Error('The registry did not get ready.');
}
