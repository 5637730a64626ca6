import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  BlobSASPermissions,
  BlobServiceClient,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { freePort } from '../../dev/free-port.ts';

/** A real block-blob store: Microsoft's Azurite in a separate process. */
export interface Azurite {
  /** Signs a URL of a blob. A negative lifetime in ms creates an expired URL. */
  sign(blob: string, permissions: string, lifetimeMs: number): string;
  stop(): Promise<void>;
}

const account = 'artifacts';
const container = 'actions-results';

export async function startAzurite(): Promise<Azurite> {
  const directory = mkdtempSync(join(tmpdir(), 'azurite-'));
  const key = randomBytes(32).toString('base64');
  const port = await freePort();
  const main = createRequire(import.meta.url).resolve('azurite/dist/src/blob/main.js');
  const options = ['--skipApiVersionCheck', '--disableTelemetry', '--silent', '--loose'];
  const child = spawn(
    process.execPath,
    [main, '--location', directory, '--blobHost', '127.0.0.1', '--blobPort', String(port), ...options],
    { env: { ...process.env, AZURITE_ACCOUNTS: `${account}:${key}` }, stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const credential = new StorageSharedKeyCredential(account, key);
  const client = new BlobServiceClient(`http://127.0.0.1:${String(port)}/${account}`, credential);
  await created(client);
  return {
    sign: (blob, permissions, lifetimeMs) => {
      const values = {
        containerName: container,
        blobName: blob,
        permissions: BlobSASPermissions.parse(permissions),
        startsOn: new Date(Date.now() - 3_600_000),
        expiresOn: new Date(Date.now() + lifetimeMs),
      };
      const query = generateBlobSASQueryParameters(values, credential).toString();
      return `${client.getContainerClient(container).getBlobClient(blob).url}?${query}`;
    },
    stop: async () => {
      child.kill('SIGTERM');
      await once(child, 'exit');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function created(client: BlobServiceClient): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      await client.getContainerClient(container).create();
      return;
    } catch (error) {
      if (tries > 600) throw error;
      await sleep(200);
    }
  }
}
