import { spawnSync } from 'node:child_process';
import { fail, input, saveState } from '../step.ts';

const args = ['login', '--username', input('username'), '--password-stdin', input('registry')];
const { status, stderr } = spawnSync('docker', args, { input: input('password'), encoding: 'utf8' });
if (status !== 0) fail(stderr);
saveState('registry', input('registry'));
