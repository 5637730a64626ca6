import { run, state } from '../step.ts';

if (state('registry') !== '') run('docker', 'logout', state('registry'));
