import { client } from '../official-client.ts';
import { env, fail, input } from '../step.ts';

// A pattern ends with an asterisk, and its artifacts are merged.
const pattern = input('pattern');
const { artifacts } = await client.listArtifacts({ latest: true });
const isWanted = (name: string): boolean =>
  pattern === '' ? name === input('name') : name.startsWith(pattern.slice(0, -1));
const wanted = artifacts.filter(({ name }) => isWanted(name));
if (wanted.length === 0) fail(`There is no artifact ${input('name')}${pattern}.`);
for (const artifact of wanted) {
  const { digestMismatch } = await client.downloadArtifact(artifact.id, {
    path: input('path') || env('GITHUB_WORKSPACE'),
    ...(artifact.digest === undefined ? {} : { expectedHash: artifact.digest }),
  });
  if (digestMismatch === true) fail(`The artifact ${artifact.name} doesn't have the digest of its upload.`);
}
