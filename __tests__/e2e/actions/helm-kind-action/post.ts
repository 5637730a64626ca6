import { run, state } from '../step.ts';

run('docker', 'rm', '--force', '--volumes', ...state('nodes').split(' '));
