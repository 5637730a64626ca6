import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.ts';
import { longSubjects } from './commit-subjects.ts';
import { deadCode } from './dead-code.ts';
import { updateDocs } from './docs.ts';
import { importCycles } from './import-cycles.ts';
import { lintYamlFiles } from './lint-yaml.ts';
import { updateCoverage } from './requirements-coverage.ts';
import { zizmorFindings } from './zizmor.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** A named check. `run` returns the findings, or none on success. */
interface Check {
  readonly name: string;
  readonly run: () => readonly string[] | Promise<readonly string[]>;
}

const checks: readonly Check[] = [
  { name: 'typecheck', run: () => tool('typescript/lib/tsc.js', '--noEmit') },
  { name: 'lint', run: () => tool('eslint/bin/eslint.js', '.', '--max-warnings=0') },
  { name: 'format', run: () => tool('prettier/bin/prettier.cjs', '--check', '--log-level=warn', '.') },
  {
    name: 'no import cycle',
    run: () => importCycles(root, ['export-image', 'load-image', 'publish-image', 'joined', 'shared', 'dev', 'bench']),
  },
  { name: 'no dead code', run: () => deadCode(root) },
  { name: 'docs match action.yml', run: () => updateDocs(true).map((file) => `${file}: run npm run docs`) },
  { name: 'each requirement has a test', run: () => updateCoverage(true) },
  { name: 'action.yml and workflow files', run: lintYamlFiles },
  { name: 'zizmor: workflows, examples and snippets', run: zizmorFindings },
  { name: 'no machine paths or registry hosts', run: forbiddenText },
  { name: 'short commit subjects', run: () => longSubjects(root) },
  { name: 'dist matches the source', run: outdatedDist },
];

function tool(script: string, ...args: readonly string[]): readonly string[] {
  const path = join(root, 'node_modules', script);
  const { status, stdout, stderr } = spawnSync(process.execPath, [path, ...args], { cwd: root, encoding: 'utf8' });
  return status === 0 ? [] : [`${stdout}${stderr}`.trim()];
}

async function outdatedDist(): Promise<readonly string[]> {
  await build();
  const status = execFileSync('git', ['status', '--porcelain', '--', 'dist'], { cwd: root }).toString().trim();
  return status === '' ? [] : [`${status}\nRun npm run build, and commit dist/.`];
}

// Finds paths of a developer's machine and addresses of package registries.
function forbiddenText(): readonly string[] {
  const home = '(^|[^A-Za-z0-9_.])/(work|root|farm)/';
  const pattern = `${home}|registry\\.npm|"resolved":|deb\\.debian\\.org`;
  const { stdout } = spawnSync('git', ['grep', '-nIE', pattern, '--', '.', ':!dist', ':!dev/check.ts'], {
    cwd: root,
    encoding: 'utf8',
  });
  return stdout === '' ? [] : [stdout.trim()];
}

const failed: string[] = [];
for (const { name, run } of checks) {
  const startedAt = performance.now();
  const findings = await run();
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(`${findings.length === 0 ? '✓' : '✗'} ${name} (${seconds} s)`);
  for (const finding of findings) console.log(finding);
  if (findings.length > 0) failed.push(name);
}
if (failed.length > 0) console.log(`\nFailed: ${failed.join(', ')}`);
process.exit(failed.length > 0 ? 1 : 0);
