import { outputOf, fail, input, items } from '../step.ts';

const image = input('image-ref');
const labels: unknown = JSON.parse(
  outputOf('docker', 'image', 'inspect', '--format', '{{json .Config.Labels}}', image),
);
const found = Object.entries(labels ?? {}).find(([name]) => name === 'org.example.findings')?.[1];
const severities = items('severity');
const counted = String(found ?? '')
  .split(',')
  .filter((severity) => severities.includes(severity));
console.log(`${image}\nTotal: ${String(counted.length)} (${counted.join(', ')})`);
const exitCode = Number(input('exit-code') || '0');
if (counted.length > 0 && exitCode !== 0) fail(`Process completed with exit code ${String(exitCode)}.`);
