import { dirname, resolve } from 'node:path';
import { client } from '../../official-client.ts';
import { input } from '../../step.ts';

const { artifact } = await client.getArtifact(input('key'));
await client.downloadArtifact(artifact.id, { path: dirname(resolve(input('path'))) });
