import { randomUUID } from 'node:crypto';
import { outputOf, input, isTrue, lines, run, saveState, setOutput } from '../step.ts';

const driver = input('driver');
const name = driver === 'docker' ? 'default' : input('name') || `builder-${randomUUID()}`;
if (driver !== 'docker') {
  if (isTrue('cleanup')) saveState('builder', name);
  const options = [...lines('driver-opts'), ...(driver === 'docker-container' ? ['network=host'] : [])];
  run(
    'docker',
    ...['buildx', 'create', '--name', name, '--driver', driver],
    ...options.flatMap((option) => ['--driver-opt', option]),
    ...(driver === 'remote' ? [] : ['--buildkitd-flags', input('buildkitd-flags')]),
    ...(isTrue('use') ? ['--use'] : []),
  );
}
run('docker', 'buildx', 'inspect', '--bootstrap', '--builder', name);
const inspected = outputOf('docker', 'buildx', 'inspect', '--builder', name);
setOutput('name', name);
setOutput('driver', driver);
setOutput('platforms', (/^Platforms:\s+(.+)$/m.exec(inspected)?.[1] ?? '').replaceAll(/[ *]/g, ''));
