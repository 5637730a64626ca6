import { join } from 'node:path';
import { getExecOutput } from '@actions/exec';
import { which } from '@actions/io';
import { HandoverError, messageOf } from '../base/errors.ts';
import { isObject, type JsonObject, parseJson, stringOr } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { quoteForeign } from '../base/text.ts';
import { readSmallFile } from '../bytes/files.ts';

// What docker has for a registry, where `docker login` (docker/login-action) has put it: in its config file, or with a program that
// keeps it (docker/cli, cli/config/credentials; docker/docker-credential-helpers).

/** A name and password, or a token that others are got for. */
export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  | { readonly kind: 'identity-token'; readonly token: string };

/**
 * @param folder of docker's configuration (`DOCKER_CONFIG`, else ~/.docker)
 * @param host of the registry, `docker.io` for Docker Hub
 * @returns undefined when nobody has logged in there
 * @throws HandoverError `invalid-input` when the file isn't docker's; `registry-failed` when a helper can't be run
 */
export async function dockerCredentials(folder: string, host: string): Promise<Credentials | undefined> {
  const path = join(folder, 'config.json');
  const bytes = await readSmallFile(path, limits.settingsBytes).catch(() => undefined);
  if (bytes === undefined) return undefined;
  const config = parseJson(bytes.toString());
  if (!isObject(config)) throw notDocker(path);
  const keys = keysOf(host);
  const helpers = isObject(config['credHelpers']) ? config['credHelpers'] : {};
  const own = keys.map((key) => helpers[key]).find((name) => typeof name === 'string');
  const helper = typeof own === 'string' ? own : stringOr(config['credsStore'], '');
  if (helper !== '') {
    for (const key of keys) {
      const found = await askHelper(helper, key);
      if (found !== undefined) return found;
    }
  }
  return inConfig(config, host);
}

// docker/cli, cli/command/registry.go: Docker Hub is known by the address of its first API.
const hub = 'https://index.docker.io/v1/';

function keysOf(host: string): readonly string[] {
  return host === 'docker.io' ? [hub, 'docker.io', 'index.docker.io'] : [host];
}

function inConfig(config: JsonObject, host: string): Credentials | undefined {
  const auths = isObject(config['auths']) ? config['auths'] : {};
  const names = keysOf(host).map(hostPart);
  // An exact key first; others may be addresses of the same host.
  const exact = keysOf(host).map((key) => auths[key]);
  const alike = Object.entries(auths).filter(([key]) => names.includes(hostPart(key)));
  const entry = [...exact, ...alike.map(([, value]) => value)].filter(isObject).find((one) => credentialsIn(one));
  return entry === undefined ? undefined : credentialsIn(entry);
}

// docker/cli, cli/config/credentials, ConvertToHostname
function hostPart(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
}

function credentialsIn(entry: JsonObject): Credentials | undefined {
  const token = stringOr(entry['identitytoken'], '');
  if (token !== '') return { kind: 'identity-token', token };
  const text = Buffer.from(stringOr(entry['auth'], ''), 'base64').toString();
  const colon = text.indexOf(':');
  if (colon > 0) return { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1) };
  const [username, password] = [stringOr(entry['username'], ''), stringOr(entry['password'], '')];
  return username === '' || password === '' ? undefined : { kind: 'password', username, password };
}

async function askHelper(name: string, key: string): Promise<Credentials | undefined> {
  if (!/^[\w.-]+$/.test(name)) throw badHelper(name, 'that is no name of a program');
  const program = `docker-credential-${name}`;
  const path = await which(program, false);
  if (path === '') throw badHelper(name, `there is no ${program} on PATH`);
  const asked = { silent: true, ignoreReturnCode: true, input: Buffer.from(key) };
  const output = await getExecOutput(`"${path}"`, ['get'], asked).catch((error: unknown) => {
    throw badHelper(name, messageOf(error));
  });
  if (output.exitCode !== 0) {
    // docker-credential-helpers, credentials/error.go: what is not there isn't trouble.
    const said = `${output.stdout}${output.stderr}`.trim();
    if (/credentials not found|no credentials/i.test(said)) return undefined;
    throw badHelper(name, said || `it exited with ${String(output.exitCode)}`);
  }
  const answer = parseJson(output.stdout);
  const [username, secret] = isObject(answer)
    ? [stringOr(answer['Username'], ''), stringOr(answer['Secret'], '')]
    : ['', ''];
  if (secret === '') return undefined;
  // The helpers' protocol: a name that is no name says what the secret is.
  if (username === '<token>') return { kind: 'identity-token', token: secret };
  return { kind: 'password', username, password: secret };
}

function badHelper(name: string, why: string): HandoverError {
  return new HandoverError(
    'registry-failed',
    `Docker’s configuration has logins kept by "${quoteForeign(name)}", which can't be asked: ${quoteForeign(why, 200)}.`,
    'Put that program on PATH, or give this step `username` and `password`.',
  );
}

function notDocker(path: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `${path} is no JSON object, and so not docker's configuration.`,
    'Repair or remove it; `docker login` writes it anew.',
  );
}
