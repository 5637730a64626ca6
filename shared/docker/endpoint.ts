import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { HandoverError, systemCodeOf } from '../base/errors.ts';
import { isObject, type JsonObject, objectOf, parseJson, stringOr } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import type { Proxies } from '../http/proxies.ts';
import { NotAFile, readSmallFile } from '../bytes/files.ts';

// Finds the API of the engine that docker's commands use, in the same way as docker (docker/cli, cli/command/cli.go and
// cli/context/docker/load.go). All special cases have no endpoint, and docker's commands are used: SSH, Windows pipes, hosts behind a
// proxy, unreadable files. Then docker reports the error.

/** The settings that select docker's engine. */
export interface DockerSettings {
  /** `DOCKER_CONFIG`, else ~/.docker. */
  readonly dockerConfigFolder: string;
  /** The environment's variables whose names begin with `DOCKER_`. */
  readonly dockerVariables: Readonly<Record<string, string>>;
  readonly proxies: Proxies;
}

/** The address of an engine's API. */
export interface Endpoint {
  /** In docker's form: `unix:///var/run/docker.sock`. */
  readonly host: string;
  readonly address:
    | { readonly kind: 'unix'; readonly socketPath: string }
    | { readonly kind: 'tcp'; readonly hostname: string; readonly port: number; readonly tls: Tls | undefined };
  /** Sent with each request, as in docker (config.json, `HttpHeaders`). */
  readonly headers: Readonly<Record<string, string>>;
  /** The version in `DOCKER_API_VERSION`; undefined is negotiated with the engine. */
  readonly apiVersion: string | undefined;
}

/** PEM texts. */
interface Tls {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly verify: boolean;
}

const defaultHost = 'unix:///var/run/docker.sock';

/** Returns the endpoint that docker's commands use; undefined if only docker can find or reach it. */
export async function engineEndpoint(settings: DockerSettings): Promise<Endpoint | undefined> {
  const { dockerConfigFolder: folder, dockerVariables: variables } = settings;
  const config = await readConfig(folder);
  const headers = config === undefined ? undefined : headersIn(config);
  const { DOCKER_API_VERSION: version = '', DOCKER_CUSTOM_HEADERS: more = '' } = variables;
  if (config === undefined || headers === undefined || more !== '' || !/^(?:v?\d+\.\d+)?$/.test(version))
    return undefined;
  const target = await targetOf(variables, stringOr(config['currentContext'], ''), folder);
  const address = target === undefined ? undefined : addressOf(target, settings.proxies);
  if (target === undefined || address === undefined) return undefined;
  return { host: target.host, address, headers, apiVersion: version === '' ? undefined : version.replace(/^v/, '') };
}

/** @returns an empty one if there is none; undefined if it can't be read */
async function readConfig(folder: string): Promise<JsonObject | undefined> {
  const text = await readIfThere(join(folder, 'config.json'));
  const config = text === undefined ? undefined : parseJson(text === '' ? '{}' : text);
  return isObject(config) ? config : undefined;
}

/** Returns '' for a missing file, undefined for an unreadable one. Throws `docker-unavailable` for a pipe. */
async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return (await readSmallFile(path, limits.jsonBytes)).toString();
  } catch (error) {
    // Docker itself would wait there, without end.
    if (error instanceof NotAFile && error.isPipe)
      throw new HandoverError(
        'docker-unavailable',
        `Docker's configuration can't be read: ${error.message}.`,
        'Look at what DOCKER_CONFIG, DOCKER_CERT_PATH and DOCKER_CONTEXT lead to.',
        error,
      );
    return systemCodeOf(error) === 'ENOENT' ? '' : undefined;
  }
}

function headersIn(config: JsonObject): Readonly<Record<string, string>> | undefined {
  const { HttpHeaders: given } = config;
  const headers = Object.entries(objectOf(given));
  const valid = headers.filter((header): header is [string, string] => {
    const [name, value] = header;
    return /^[\w-]+$/.test(name) && typeof value === 'string' && /^[\t\x20-\x7e]*$/.test(value);
  });
  return valid.length === headers.length ? Object.fromEntries(valid) : undefined;
}

interface Target {
  readonly host: string;
  readonly tls: Tls | undefined;
}

/** DOCKER_HOST comes before DOCKER_CONTEXT, and that before the configuration's current context (`resolveContextName`). */
async function targetOf(
  variables: DockerSettings['dockerVariables'],
  currentContext: string,
  folder: string,
): Promise<Target | undefined> {
  const { DOCKER_HOST: host = '', DOCKER_CONTEXT: named = '' } = variables;
  const context = host === '' ? named || currentContext : '';
  if (context !== '' && context !== 'default') return contextTarget(context, folder);
  const { DOCKER_TLS_VERIFY: verify = '', DOCKER_TLS: tls = '', DOCKER_CERT_PATH: path = '' } = variables;
  const target = { host: host.trim() || defaultHost };
  if (verify === '' && tls === '') return { ...target, tls: undefined };
  const files = await tlsFiles(path || folder);
  return files?.ca === undefined ? undefined : { ...target, tls: { ...files, verify: verify !== '' } };
}

/** Reads a context as `docker context` stores it (docker/cli, cli/context/store). */
async function contextTarget(name: string, folder: string): Promise<Target | undefined> {
  const id = createHash('sha256').update(name).digest('hex');
  const contexts = join(folder, 'contexts');
  const meta = parseJson((await readIfThere(join(contexts, 'meta', id, 'meta.json'))) ?? '');
  const endpoints = isObject(meta) ? meta['Endpoints'] : undefined;
  const docker = isObject(endpoints) ? endpoints['docker'] : undefined;
  const files = await tlsFiles(join(contexts, 'tls', id, 'docker'));
  if (!isObject(docker) || files === undefined) return undefined;
  const host = stringOr(docker['Host'], '');
  const verify = docker['SkipTLSVerify'] !== true;
  const hasTls = !verify || [files.ca, files.cert, files.key].some((file) => file !== undefined);
  return { host, tls: hasTls ? { ...files, verify } : undefined };
}

async function tlsFiles(folder: string): Promise<Omit<Tls, 'verify'> | undefined> {
  const read = async (name: string): Promise<string | undefined> => readIfThere(join(folder, name));
  const [ca, cert, key] = await Promise.all(['ca.pem', 'cert.pem', 'key.pem'].map(read));
  if (ca === undefined || cert === undefined || key === undefined) return undefined;
  return { ca: ca || undefined, cert: cert || undefined, key: key || undefined };
}

function addressOf({ host, tls }: Target, proxies: Proxies): Endpoint['address'] | undefined {
  const socketPath = /^unix:\/\/(\/.+)$/.exec(host)?.[1];
  // On Windows, docker's own default is a pipe.
  if (socketPath !== undefined)
    return tls === undefined && process.platform !== 'win32' ? { kind: 'unix', socketPath } : undefined;
  const url = host.startsWith('tcp://') ? URL.parse(host.replace(/^tcp:/, 'http:')) : null;
  if (url === null || url.hostname === '' || !['', '/'].includes(url.pathname)) return undefined;
  // Docker takes the system's authorities where it is given none, Node has a list of its own.
  if (tls?.verify === true && tls.ca === undefined) return undefined;
  const hostname = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const proxy = tls === undefined ? proxies.http : proxies.https;
  // Docker uses a proxy for all hosts except this one (golang.org/x/net/http/httpproxy).
  if (proxy !== undefined && !/^(?:localhost|127\.\d+\.\d+\.\d+|::1)$/.test(hostname)) return undefined;
  // `tcp://h:80` is port 80, which URLs leave out.
  const port = Number(/:(\d+)\/?$/.exec(host)?.[1] ?? (tls === undefined ? 2375 : 2376));
  return { kind: 'tcp', hostname, port, tls };
}
