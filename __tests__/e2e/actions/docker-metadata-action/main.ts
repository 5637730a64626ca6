import { env, exportVariable, items, setOutput } from '../step.ts';

const names = tagNames();
// The original also lower-cases repositories.
const tags = items('images').flatMap((image) => names.map((name) => `${image.toLowerCase()}:${name}`));
const labels = {
  'org.opencontainers.image.revision': env('GITHUB_SHA'),
  'org.opencontainers.image.version': names[0] ?? '',
};
const outputs = {
  tags: tags.join('\n'),
  labels: Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join('\n'),
  version: names[0] ?? '',
  json: JSON.stringify({ tags, labels }),
};
for (const [name, value] of Object.entries(outputs)) {
  setOutput(name, value);
  exportVariable(`DOCKER_METADATA_OUTPUT_${name.toUpperCase()}`, value);
}

function tagNames(): readonly string[] {
  const [, kind, name = ''] = /^refs\/(heads|tags|pull)\/(.+)$/.exec(env('GITHUB_REF')) ?? [];
  const clean = name.replaceAll(/[^A-Za-z0-9._-]+/g, '-');
  if (kind === 'pull') return [`pr-${name.split('/')[0] ?? ''}`];
  return kind === 'tags' ? [clean, 'latest'] : [clean];
}
