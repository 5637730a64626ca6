import { open } from 'node:fs/promises';
import { readText } from '../shared/http/answer.ts';
import { httpClient } from '../shared/http/client.ts';
import { resultsService } from '../shared/artifacts/service/results-service.ts';
import { serviceCredentials } from '../shared/artifacts/service/results-service.ts';

// Measures the link: sends a file in blocks, eight at a time, without hashing, packing or checks.
//   node bare-upload.ts NAME FILE
const [, , name = '', path = ''] = process.argv;
const blockBytes = 4 * 1024 * 1024;
const { signal } = new AbortController();
const http = httpClient({ except: '' }, signal);
const env = (variable: string): string => process.env[variable] ?? '';
const credentials = serviceCredentials(env('ACTIONS_RUNTIME_TOKEN'), env('ACTIONS_RESULTS_URL'), 'GitHub');
const service = resultsService(http, credentials, console.error, signal);
const url = await service.create(name, new Date(Date.now() + 86_400_000));
const file = await open(path);
const { size } = await file.stat();
let next = 0;
await Promise.all(
  Array.from({ length: 8 }, async () => {
    const block = Buffer.allocUnsafeSlow(blockBytes);
    for (let at = next; at < size; at = next) {
      next += blockBytes;
      const { bytesRead } = await file.read(block, 0, blockBytes, at);
      const id = encodeURIComponent(Buffer.from(String(at).padStart(12, '0')).toString('base64'));
      const put = {
        method: 'PUT',
        url: `${url}&comp=block&blockid=${id}`,
        headers: {},
        body: block.subarray(0, bytesRead),
      } as const;
      await readText(await http.send(put));
    }
  }),
);
await file.close();
await http.close();
