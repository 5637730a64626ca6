import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheRoot } from './docker-packages.ts';
import { snippetsIn, tracked } from './lint-yaml.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const version = '1.32.0';

/** Returns zizmor's findings in the workflows, the actions, the examples, and each snippet in the documentation. */
export function zizmorFindings(): readonly string[] {
  const program = installed();
  if (program === undefined) {
    const missing = `zizmor ${version} is missing: installing it needs python3 and pip.`;
    if (process.env['GITHUB_ACTIONS'] === 'true') return [missing];
    console.log(`  ${missing} Skipped.`);
    return [];
  }
  const folder = mkdtempSync(join(tmpdir(), 'ih-zizmor-'));
  try {
    const snippets = tracked('*.md').flatMap((document) => {
      const text = readFileSync(join(root, document), 'utf8');
      return snippetsIn(text).map(({ line, workflow }) => {
        const path = join(folder, `${document.replaceAll('/', '-')}-line-${String(line)}.yml`);
        writeFileSync(path, workflow.text);
        return path;
      });
    });
    const options = ['--offline', '--quiet', '--config', join('.github', 'zizmor.yml')];
    const { status, stdout, stderr } = spawnSync(
      program,
      [...options, '.', ...tracked('examples/*/*.yml'), ...snippets],
      { cwd: root, encoding: 'utf8' },
    );
    return status === 0 ? [] : [`${stdout}${stderr}`.trim()];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Returns the program, installed once from its Python package. Undefined if that fails. */
function installed(): string | undefined {
  const folder = join(cacheRoot, `zizmor-${version}`);
  const program = join(folder, 'bin', 'zizmor');
  if (!existsSync(program)) {
    mkdirSync(cacheRoot, { recursive: true });
    spawnSync('python3', ['-m', 'pip', 'install', '--quiet', '--target', folder, `zizmor==${version}`]);
  }
  return existsSync(program) ? program : undefined;
}
