import { spawn } from 'node:child_process';
import { addAbortListener, once } from 'node:events';
import { which } from '@actions/io';
import { HandoverError, messageOf } from '../base/errors.ts';
import { killTree } from '../base/forced-end.ts';
import { isObject, parseJson, stringOr } from '../base/json.ts';
import { quoteForeign } from '../base/text.ts';

// A program that stores docker's logins (docker/docker-credential-helpers). Its output may contain a password, so no message contains the
// output.

// A helper that opens a browser or a prompt never returns here.
const answerMs = 60_000;
// Its children may keep its output open.
const streamMs = 500;
const mostBytes = 1024 * 1024;

/** Requests a login by docker's name of the registry. Undefined if there is none. Throws `registry-failed`, or the signal's reason. */
export async function askHelper(
  name: string,
  key: string,
  signal: AbortSignal,
): Promise<{ readonly username: string; readonly secret: string } | undefined> {
  if (!/^[\w.-]+$/.test(name)) throw badHelper(name, 'that is not a valid name of a program');
  const program = `docker-credential-${name}`;
  const path = await which(program, false);
  if (path === '') throw badHelper(name, `there is no ${program} on PATH`);
  const { exitCode, stdout } = await run(name, path, key, signal);
  if (exitCode !== 0) {
    // docker-credential-helpers, credentials/error.go: a missing login is not a failure.
    if (/credentials not found|no credentials/i.test(stdout)) return undefined;
    throw badHelper(name, `${program} get exited with ${exitCode === null ? 'a signal' : String(exitCode)}`);
  }
  const answer = parseJson(stdout);
  if (!isObject(answer)) throw badHelper(name, `${program} get printed something other than a JSON object`);
  const [username, secret] = [stringOr(answer['Username'], ''), stringOr(answer['Secret'], '')];
  return secret === '' ? undefined : { username, secret };
}

async function run(name: string, path: string, key: string, signal: AbortSignal) {
  signal.throwIfAborted();
  const limit = AbortSignal.timeout(answerMs);
  // Not `execFile`: it would read and limit what the helper tells its user.
  const child = spawn(path, ['get'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const close = (): void => void child.stdout.destroy();
  const ending = addAbortListener(AbortSignal.any([signal, limit]), () => {
    if (child.pid !== undefined && child.exitCode === null) killTree(child.pid);
    close();
  });
  child.once('exit', () => setTimeout(close, streamMs).unref());
  child.stdin.on('error', () => undefined).end(key);
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    stdout += part;
    if (stdout.length > mostBytes) close();
  });
  const failure = await once(child, 'close').then(
    () => (stdout.length > mostBytes ? 'its output is too long' : undefined),
    messageOf,
  );
  ending[Symbol.dispose]();
  signal.throwIfAborted();
  if (limit.aborted) throw badHelper(name, `it gave no answer within ${String(answerMs / 1000)} s`);
  if (failure !== undefined) throw badHelper(name, failure);
  return { exitCode: child.exitCode, stdout };
}

function badHelper(name: string, why: string): HandoverError {
  return new HandoverError(
    'registry-failed',
    `Docker’s configuration has logins in "${quoteForeign(name)}", which failed: ${quoteForeign(why, 200)}.`,
    'Put that program on PATH and test it on this runner (its output may contain a password and isn’t shown here), or set ' +
      '`username` and `password`.',
  );
}
