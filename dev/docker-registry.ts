import { type ChildProcess, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { dockerParts } from './docker-packages.ts';
import { freePort } from './free-port.ts';
import { goPart } from './go-parts.ts';
import { endChild, spawnOwn, onExit } from './own-processes.ts';

/** A registry on the loopback interface that this process started. */
export interface Registry {
  /** `127.0.0.1:<port>`: docker needs no TLS for such an address. */
  readonly address: string;
  stop(): Promise<void>;
}

export interface Login {
  readonly user: string;
  readonly password: string;
}

/** Real registries: CNCF's Distribution from the Linux distribution's package, and zot, built from source. */
export const registrySoftware = ['docker-registry', 'zot'] as const;

export interface RegistryOptions {
  /** Default: docker-registry. zot doesn't support `tokens`. */
  readonly software?: (typeof registrySoftware)[number];
  /** Required for pushes and pulls. Default: no login. */
  readonly login?: Login;
  /** Paths of PEM files. Default: plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** The token server, and the path of the certificate that verifies its tokens. */
  readonly tokens?: {
    readonly realm: string;
    readonly service: string;
    readonly issuer: string;
    readonly cert: string;
  };
}

/** Starts a registry with empty storage. */
export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const root = mkdtempSync(join(tmpdir(), 'ih-registry-'));
  const remove = (): void => rmSync(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  const address = `127.0.0.1:${String(await freePort())}`;
  const child =
    options.software === 'zot'
      ? await startZot(root, address, options)
      : await startDistribution(root, address, options);
  const forget = onExit(() => {
    child.kill('SIGKILL');
    remove();
  });
  const stop = async (): Promise<void> => {
    await endChild(child, 5000);
    forget();
    remove();
  };
  try {
    await waitForConnection(address, child);
  } catch (error) {
    await stop();
    throw error;
  }
  return { address, stop };
}

async function startDistribution(root: string, address: string, options: RegistryOptions): Promise<ChildProcess> {
  const { tls } = options;
  const { path } = await dockerParts();
  const config = join(root, 'config.yml');
  const storage = `storage:\n  filesystem:\n    rootdirectory: ${join(root, 'data')}\n  delete:\n    enabled: true\n`;
  const secure = tls === undefined ? '' : `  tls:\n    certificate: ${tls.cert}\n    key: ${tls.key}\n`;
  const http = `http:\n  addr: ${address}\n${secure}`;
  writeFileSync(config, `version: 0.1\nlog:\n  level: error\n${storage}${http}${authentication(root, options)}`);
  return spawnOwn('docker-registry', ['serve', config], { env: { ...process.env, PATH: path }, stdio: 'ignore' });
}

async function startZot(root: string, hostAndPort: string, { login, tls }: RegistryOptions): Promise<ChildProcess> {
  const program = join(await goPart('zot'), 'zot');
  const [address, port] = hostAndPort.split(':');
  const http = {
    address,
    port,
    ...(tls === undefined ? {} : { tls }),
    ...(login === undefined ? {} : { auth: { htpasswd: { path: passwordFile(root, login) } } }),
  };
  const config = join(root, 'config.json');
  const storage = { rootDirectory: join(root, 'data') };
  writeFileSync(config, JSON.stringify({ distSpecVersion: '1.0.1-dev', storage, http, log: { level: 'error' } }));
  return spawnOwn(program, ['serve', config], { stdio: 'ignore' });
}

function authentication(root: string, { login, tokens }: RegistryOptions): string {
  if (tokens !== undefined) {
    const { realm, service, issuer, cert } = tokens;
    return `auth:\n  token:\n    realm: ${realm}\n    service: ${service}\n    issuer: ${issuer}\n    rootcertbundle: ${cert}\n`;
  }
  if (login === undefined) return '';
  return `auth:\n  htpasswd:\n    realm: test\n    path: ${passwordFile(root, login)}\n`;
}

function passwordFile(root: string, login: Login): string {
  const file = join(root, 'htpasswd');
  // Registries accept only bcrypt, which Node doesn't have. Debian's perl gets it from the C library.
  const salt = `$2b$05$${randomBytes(16).toString('hex').slice(0, 22)}`;
  const hash = execFileSync('perl', ['-e', 'print crypt($ARGV[0], $ARGV[1])', login.password, salt]).toString();
  writeFileSync(file, `${login.user}:${hash}\n`);
  return file;
}

async function waitForConnection(address: string, child: ChildProcess): Promise<void> {
  const [host, port] = address.split(':');
  for (let tries = 0; tries < 1200 && child.exitCode === null; tries += 1) {
    const socket = connect(Number(port), host);
    const isConnected = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isConnected) return;
    await sleep(100);
  }
  throw new Error('The registry did not become ready. Is docker-registry installed?');
}
