import { execFileSync } from 'node:child_process';
import { kindLabels, startNode } from '../../../../dev/cluster-nodes.ts';
import { input, saveState } from '../step.ts';

const cluster = input('cluster_name');
const docker = (...args: readonly string[]): string => execFileSync('docker', args, { encoding: 'utf8' });
saveState('nodes', `${cluster}-control-plane ${cluster}-worker`);
for (const role of ['control-plane', 'worker'])
  await startNode({ docker }, { name: `${cluster}-${role}`, labels: kindLabels(cluster, role) });
