import { readFile } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { basename } from 'node:path';

// The registry and its link alone: pushes files, named by their digests, out of memory and all at once, without checking anything.
//   node bare-push.ts http://HOST/v2/REPOSITORY FILE…
const [, , repository = '', ...paths] = process.argv;
await Promise.all(
  paths.map(async (path) => {
    const body = await readFile(path);
    const begun = await fetch(`${repository}/blobs/uploads/`, { method: 'POST' });
    const place = new URL(begun.headers.get('location') ?? '', repository);
    place.searchParams.set('digest', `sha256:${basename(path)}`);
    const headers = { 'content-type': 'application/octet-stream', 'content-length': body.length };
    const put = request(place, { method: 'PUT', headers });
    put.end(body);
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      put.once('response', resolve).once('error', reject);
    });
    response.resume();
    if (response.statusCode !== 201) throw new Error(`PUT ${place.href}: ${String(response.statusCode)}`);
  }),
);
