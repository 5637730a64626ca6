import { readFile } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { basename } from 'node:path';

// Measures the registry and its link: pushes files named by their digests, concurrently and from memory, without checks.
//   node bare-push.ts http://HOST/v2/REPOSITORY FILE…
const [, , repository = '', ...paths] = process.argv;
await Promise.all(
  paths.map(async (path) => {
    const body = await readFile(path);
    const session = await fetch(`${repository}/blobs/uploads/`, { method: 'POST' });
    const target = new URL(session.headers.get('location') ?? '', repository);
    target.searchParams.set('digest', `sha256:${basename(path)}`);
    const headers = { 'content-type': 'application/octet-stream', 'content-length': body.length };
    const put = request(target, { method: 'PUT', headers });
    put.end(body);
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      put.once('response', resolve).once('error', reject);
    });
    response.resume();
    if (response.statusCode !== 201) throw new Error(`PUT ${target.href}: ${String(response.statusCode)}`);
  }),
);
