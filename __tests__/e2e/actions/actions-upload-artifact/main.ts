import { dirname, resolve } from 'node:path';
import { client } from '../official-client.ts';
import { fail, input, lines, setOutput } from '../step.ts';

const files = lines('path').map((path) => resolve(path));
const [first] = files;
if (first === undefined) fail('path is missing.');
const days = Number(input('retention-days'));
const uploaded = await client.uploadArtifact(input('name'), files, dirname(first), {
  compressionLevel: Number(input('compression-level')),
  ...(days === 0 ? {} : { retentionDays: days }),
});
setOutput('artifact-id', String(uploaded.id));
setOutput('artifact-digest', uploaded.digest ?? '');
