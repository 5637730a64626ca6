import { run, state } from '../step.ts';

if (state('builder') !== '') run('docker', 'buildx', 'rm', state('builder'));
