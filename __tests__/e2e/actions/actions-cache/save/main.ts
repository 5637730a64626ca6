import { dirname, resolve } from 'node:path';
import { client } from '../../official-client.ts';
import { input } from '../../step.ts';

const file = resolve(input('path'));
await client.uploadArtifact(input('key'), [file], dirname(file), { compressionLevel: 0 });
