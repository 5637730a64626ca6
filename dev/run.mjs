// Runs a script of this project on Node 24. The machine needs only npm and some version of Node:
//   node dev/run.mjs dev/demo.ts [arguments]
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const installed = join(root, 'node_modules', '.package-lock.json');
const lock = join(root, 'package-lock.json');

if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
  console.log('Installing the packages of package-lock.json (npm ci) …');
  const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) fail('npm ci failed: see its message above.');
}

const [script, ...args] = process.argv.slice(2);
if (script === undefined) fail('usage: node dev/run.mjs <script> [arguments]');
const child = spawn(node24(), ['--disable-warning=ExperimentalWarning', join(root, script), ...args], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, PATH: [join(root, 'node_modules', '.bin'), process.env.PATH].join(delimiter) },
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('error', (error) => fail(error.message));
child.on('exit', (code, signal) => process.exit(signal === null ? code : 128 + constants.signals[signal]));

/** Returns the Node that runners use for `using: node24`: the npm package `node` contains the real binary. */
function node24() {
  const packaged = join(root, 'node_modules', 'node', 'bin', 'node');
  const works = (path) => spawnSync(path, ['--version']).stdout?.toString().startsWith('v24.') === true;
  if (existsSync(packaged) && works(packaged)) return packaged;
  if (works(process.execPath)) return process.execPath;
  return fail('Node 24 is missing. Allow the install script of the npm package `node`, or run this with Node 24.');
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
