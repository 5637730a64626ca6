import { client } from '../official-client.ts';
import { env, fail, input } from '../step.ts';

const { artifact } = await client.getArtifact(input('name'));
const { digestMismatch } = await client.downloadArtifact(artifact.id, {
  path: input('path') || env('GITHUB_WORKSPACE'),
  ...(artifact.digest === undefined ? {} : { expectedHash: artifact.digest }),
});
if (digestMismatch === true) fail(`The artifact ${input('name')} doesn't have the digest of its upload.`);
