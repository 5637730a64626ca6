import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { invalidInput, messageOf, systemCodeOf } from '../base/errors.ts';
import { isObject, type JsonObject, parseJson, stringOr, stringsOf } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { quoteForeign } from '../base/text.ts';
import { readSmallFile } from '../bytes/files.ts';
import { canonicalReference, registryHost } from '../image/reference.ts';

/** A name and password, or a token for getting other tokens. */
export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  | { readonly kind: 'identity-token'; readonly token: string };

/** Asks a credential helper (docker/docker-credential-helpers) for a key. Throws HandoverError `registry-failed`, or the signal's reason. */
export type AskHelper = (
  name: string,
  key: string,
  signal: AbortSignal,
) => Promise<{ readonly username: string; readonly secret: string } | undefined>;

// Finds the credentials that `docker login` (docker/login-action) has stored for a registry: in docker's config file, with a credential
// helper, in a login for one repository, or in the environment (docker/cli, cli/config).

/** The places of docker's logins. */
export interface LoginPlaces {
  /** `DOCKER_CONFIG`, else ~/.docker. */
  readonly dockerConfigFolder: string;
  /** `BUILDX_CONFIG`, else `buildx` in docker's folder. */
  readonly buildxConfigFolder: string;
  /** The variable `DOCKER_AUTH_CONFIG`; empty if it isn't set. */
  readonly dockerAuthConfig: string;
}

/**
 * Returns the folder whose config.json has the login for a push to a repository: docker's own, or one that docker/login-action writes for
 * its input `scope`, for a repository or a kind of use (`<host>/<repository>@<actions>` below buildx's `config`). The selection is
 * buildx's (docker/buildx, util/dockerutil/dockerconfig/configprovider.go).
 */
export async function loginFolder(
  { dockerConfigFolder, buildxConfigFolder }: LoginPlaces,
  repository: string,
): Promise<string> {
  const root = join(buildxConfigFolder, 'config');
  const files = await readdir(root, { recursive: true }).catch(() => []);
  const host = registryHost(repository);
  const path = canonicalReference({ repository }).slice(host.length + 1);
  const [best] = files
    .filter((file) => basename(file) === 'config.json')
    .toSorted()
    .map((file) => parseScope(dirname(file)))
    .filter((one) => one.host === apiHost(host) && ['', path].includes(one.repository))
    .filter((one) => one.actions.every((action) => ['pull', 'push'].includes(action)))
    .toSorted(
      (one, other) => other.repository.length - one.repository.length || other.actions.length - one.actions.length,
    );
  return best === undefined ? dockerConfigFolder : join(root, best.folder);
}

// The host of Docker Hub's API (moby, registry/config.go).
export const apiHost = (host: string): string => (host === 'docker.io' ? 'registry-1.docker.io' : host);

interface LoginScope {
  readonly folder: string;
  readonly host: string;
  /** Empty means all repositories. */
  readonly repository: string;
  /** The allowed uses. Empty means all. */
  readonly actions: readonly string[];
}

function parseScope(folder: string): LoginScope {
  const [place = '', ...actions] = folder.split('@');
  const [host = '', ...repository] = place.split('/');
  const words = actions.join('@').split(',');
  const named = words.map((word) => word.trim()).filter(Boolean);
  return { folder, host, repository: repository.join('/'), actions: [...new Set(named)] };
}

interface CredentialsOptions {
  /** The folder with config.json. */
  readonly folder: string;
  readonly dockerAuthConfig: string;
  readonly askHelper: AskHelper;
  /** Ends a credential helper. */
  readonly signal: AbortSignal;
  readonly onNotice: (line: string) => void;
}

/**
 * @param host of the registry, `docker.io` for Docker Hub
 * @returns undefined without a login
 * @throws HandoverError `invalid-input` when the file isn't docker's; `registry-failed` when a helper fails
 */
export async function dockerCredentials(host: string, options: CredentialsOptions): Promise<Credentials | undefined> {
  const { folder, askHelper, signal, onNotice } = options;
  const given = inEnvironment(host, options);
  if (given !== undefined) return given;
  const path = join(folder, 'config.json');
  const bytes = await readSmallFile(path, limits.settingsBytes).catch((error: unknown) => {
    if (!['ENOENT', 'ENOTDIR'].includes(systemCodeOf(error) ?? ''))
      onNotice(`Ignoring the logins in ${path}, because it can’t be read: ${quoteForeign(messageOf(error))}.`);
    return undefined;
  });
  if (bytes === undefined) return undefined;
  const config = parseJson(bytes.toString());
  if (!isObject(config))
    throw invalidInput(
      `${path} is not docker's configuration: expected a JSON object.`,
      'Repair or remove it; `docker login` writes a new one.',
    );
  const keys = keysOf(host);
  const helpers = isObject(config['credHelpers']) ? config['credHelpers'] : {};
  const [helper = stringOr(config['credsStore'], '')] = stringsOf(keys.map((key) => helpers[key]));
  if (helper !== '') {
    for (const key of keys) {
      const found = await askHelper(helper, key, signal);
      // In the helpers' protocol, this name means that the secret is a token.
      if (found?.username === '<token>') return { kind: 'identity-token', token: found.secret };
      if (found !== undefined) return { kind: 'password', username: found.username, password: found.secret };
    }
  }
  return inConfig(config, host);
}

// Docker Hub's logins are stored under the address of its first API (docker/cli, cli/command/registry.go).
const hub = 'https://index.docker.io/v1/';

function keysOf(host: string): readonly string[] {
  return host === 'docker.io' ? [hub, 'docker.io', 'index.docker.io'] : [host];
}

// The variable has precedence. As in docker, it is ignored if a registry's entry has more than `auth` (docker/cli,
// cli/config/configfile/file.go, parseEnvConfig).
function inEnvironment(host: string, { dockerAuthConfig, onNotice }: CredentialsOptions): Credentials | undefined {
  if (dockerAuthConfig.trim() === '') return undefined;
  const value = parseJson(dockerAuthConfig);
  const auths =
    isObject(value) && Object.keys(value).every((key) => key === 'auths') ? (value['auths'] ?? {}) : undefined;
  const [key = ''] = keysOf(host);
  if (isObject(auths) && Object.values(auths).every((entry) => onlyAuth(entry) !== undefined))
    return onlyAuth(auths[key]);
  onNotice(
    'The variable DOCKER_AUTH_CONFIG is ignored, as docker does: expected {"auths": {"<registry>": {"auth": "<base64 of user:password>"}}}.',
  );
  return undefined;
}

function onlyAuth(entry: unknown): Credentials | undefined {
  return isObject(entry) && Object.keys(entry).join() === 'auth' ? credentialsIn(entry) : undefined;
}

function inConfig(config: JsonObject, host: string): Credentials | undefined {
  const auths = isObject(config['auths']) ? config['auths'] : {};
  const names = keysOf(host).map(hostPart);
  // First the exact key, then other addresses of the same host.
  const exact = keysOf(host).map((key) => auths[key]);
  const alike = Object.entries(auths).filter(([key]) => names.includes(hostPart(key)));
  const entries = [...exact, ...alike.map(([, value]) => value)].filter(isObject);
  return entries.map(credentialsIn).find((credentials) => credentials !== undefined);
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
