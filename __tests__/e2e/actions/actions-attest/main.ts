import { appendFileSync, readFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { env, fail, input, isTrue, setOutput } from '../step.ts';

const [path, given, name] = [input('subject-path'), input('subject-digest'), input('subject-name')];
if ((path === '') === (given === '')) fail('One of subject-path or subject-digest must be provided');
if (given !== '' && name === '') fail('subject-name must be provided when using subject-digest');
if (given !== '' && !/^sha256:[0-9a-f]{64}$/.test(given))
  fail('subject-digest must be in the format "sha256:<hex-digest>"');
// The name for a registry includes the host but no tag.
if (isTrue('push-to-registry') && !/^[\w.-]+(?::\d+)?\/[a-z0-9][\w./-]*$/.test(name))
  fail(`subject-name "${name}" is not a repository with its registry`);
const digest = given || `sha256:${createHash('sha256').update(readFileSync(path)).digest('hex')}`;
appendFileSync(join(env('E2E_JOBS'), 'attested'), `${digest}\n`);
console.log(`Attestation created for ${name}@${digest}`);
setOutput('attestation-id', '1');
