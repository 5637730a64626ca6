import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { env, input, isTrue, items, lines, run, setOutput } from '../step.ts';

const folder = mkdtempSync(join(env('RUNNER_TEMP'), 'docker-actions-toolkit-'));
const idFile = join(folder, 'iid');
const metadataFile = join(folder, 'metadata');
const list = (flag: string, values: readonly string[]): readonly string[] => values.flatMap((value) => [flag, value]);
const one = (flag: string, value: string): readonly string[] => (value === '' ? [] : [flag, value]);
const flag = (name: string): readonly string[] => (isTrue(name) ? [`--${name}`] : []);

run(
  'docker',
  ...['buildx', 'build'],
  ...list('--allow', items('allow')),
  ...list('--build-arg', lines('build-args')),
  ...list('--build-context', lines('build-contexts')),
  ...one('--builder', input('builder')),
  ...list('--cache-from', lines('cache-from')),
  ...list('--cache-to', lines('cache-to')),
  ...one('--file', input('file')),
  ...['--iidfile', idFile],
  ...list('--label', lines('labels')),
  ...one('--network', input('network')),
  ...list('--output', lines('outputs')),
  ...one('--platform', items('platforms').join(',')),
  ...attestations(),
  ...list('--secret', lines('secrets').map(secret)),
  ...list('--tag', items('tags')),
  ...one('--target', input('target')),
  ...['--metadata-file', metadataFile],
  ...['load', 'no-cache', 'pull', 'push'].flatMap(flag),
  input('context') || gitContext(),
);
const metadata = existsSync(metadataFile) ? readFileSync(metadataFile, 'utf8') : '';
setOutput('imageid', existsSync(idFile) ? readFileSync(idFile, 'utf8').trim() : '');
setOutput('digest', /"containerimage\.digest": "([^"]+)"/.exec(metadata)?.[1] ?? '');
setOutput('metadata', metadata);

// As in docker/actions-toolkit, Context.gitContext: the commit, or the ref of a pull request.
function gitContext(): string {
  const ref = env('GITHUB_REF').startsWith('refs/pull/') ? env('GITHUB_REF') : env('GITHUB_SHA');
  return `${env('GITHUB_SERVER_URL')}/${env('GITHUB_REPOSITORY')}.git#${ref}`;
}

function attestations(): readonly string[] {
  const sbom = one('--sbom', input('sbom'));
  if (input('provenance') !== '') return ['--provenance', input('provenance'), ...sbom];
  const isLoaded = isTrue('load') || lines('outputs').some((output) => output.includes('type=docker'));
  return isLoaded ? sbom : ['--attest', 'type=provenance,mode=max', ...sbom];
}

function secret(line: string, index: number): string {
  const [, id = '', value = ''] = /^([^=]+)=([\s\S]*)$/.exec(line) ?? [];
  const file = join(folder, `secret-${String(index)}`);
  writeFileSync(file, value, { mode: 0o600 });
  return `id=${id},src=${file}`;
}
