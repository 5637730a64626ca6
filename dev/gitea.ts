import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../shared/base/errors.ts';
import { isObject, parseJson, stringOr } from '../shared/base/json.ts';
import type { Login } from './docker-registry.ts';
import { freePort } from './free-port.ts';
import { goPart } from './go-parts.ts';
import { endChild, onExit, spawnOwn } from './own-processes.ts';

/** A Gitea on the loopback interface that this process started, with Actions and an empty public repository. */
export interface Gitea {
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** `owner/name` of the repository. */
  readonly repository: string;
  /** An administrator. Its password is an API token. */
  readonly admin: Login;
  /** Its SQLite database. */
  readonly database: string;
  /** The folder of its artifact storage; `tmp-upload` contains the blocks of unfinished uploads. */
  readonly artifacts: string;
  /**
   * Calls the API as the administrator.
   * @param path below `/api/v1`
   * @throws Error unless the request succeeds
   */
  api(method: string, path: string, body?: unknown): Promise<unknown>;
  stop(): Promise<void>;
}

// Gitea reserves the name `org`.
const user = 'tester';

/** Starts a Gitea with an empty database. The Go part determines its version. */
export async function startGitea(): Promise<Gitea> {
  const part = await goPart('gitea');
  const root = mkdtempSync(join(tmpdir(), 'ih-gitea-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${String(port)}`;
  const config = join(root, 'app.ini');
  writeFileSync(config, settings(root, part, port));
  const env = { ...process.env, GITEA_WORK_DIR: root, HOME: root };
  const logFile = join(root, 'gitea.log');
  const log = openSync(logFile, 'w');
  const child = spawnOwn(join(part, 'gitea'), ['web', '--config', config], { env, stdio: ['ignore', log, log] });
  const remove = (): void => rmSync(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  const forget = onExit(() => {
    child.kill('SIGKILL');
    remove();
  });
  const stop = async (): Promise<void> => {
    await endChild(child, 10_000);
    forget();
    remove();
  };
  try {
    for (let tries = 0; !(await isHealthy(url)); tries += 1) {
      if (child.exitCode !== null || tries === 1200) throw new Error('it did not become ready');
      await sleep(100);
    }
    const password = createAdmin(join(part, 'gitea'), config, env);
    const api = apiOf(url, password);
    await api('POST', '/user/repos', { name: 'charon', default_branch: 'main' });
    const data = join(root, 'data');
    const folders = { database: join(data, 'gitea.db'), artifacts: join(data, 'actions_artifacts') };
    return { url, repository: `${user}/charon`, admin: { user, password }, ...folders, api, stop };
  } catch (error) {
    const lines = readFileSync(logFile, 'utf8').trim().split('\n').slice(-20).join('\n');
    await stop();
    throw new Error(`Gitea: ${messageOf(error)}\n${lines}`, { cause: error });
  }
}

/** Returns a configuration file. The module's custom/conf/app.example.ini describes all settings. */
function settings(root: string, part: string, port: number): string {
  const secret = (): string => randomBytes(32).toString('hex');
  const sections: Readonly<Record<string, Readonly<Record<string, string | number | boolean>>>> = {
    server: {
      HTTP_ADDR: '127.0.0.1',
      HTTP_PORT: port,
      ROOT_URL: `http://127.0.0.1:${String(port)}/`,
      STATIC_ROOT_PATH: part,
      APP_DATA_PATH: join(root, 'data'),
      DISABLE_SSH: true,
      OFFLINE_MODE: true,
    },
    database: { DB_TYPE: 'sqlite3', PATH: join(root, 'data', 'gitea.db'), SQLITE_JOURNAL_MODE: 'WAL' },
    repository: { ROOT: join(root, 'repositories') },
    indexer: { ISSUE_INDEXER_TYPE: 'db' },
    // Marks the installation as complete.
    security: { INSTALL_LOCK: true, SECRET_KEY: secret() },
    log: { MODE: 'console', LEVEL: 'warn' },
    actions: { ENABLED: true },
  };
  const lines = Object.entries(sections).flatMap(([name, keys]) => [
    `[${name}]`,
    ...Object.entries(keys).map(([key, value]) => `${key} = ${String(value)}`),
  ]);
  // The engines of the tests need root.
  return ['I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true', ...lines, ''].join('\n');
}

async function isHealthy(url: string): Promise<boolean> {
  return fetch(`${url}/api/healthz`).then(
    ({ ok }) => ok,
    () => false,
  );
}

/** Returns an access token of a new administrator. */
function createAdmin(program: string, config: string, env: NodeJS.ProcessEnv): string {
  const options = ['--username', user, '--email', 'tester@example.org', '--admin', '--random-password'];
  const token = ['--must-change-password=false', '--access-token', '--access-token-scopes', 'all'];
  const command = ['admin', 'user', 'create', '--config', config, ...options, ...token];
  const output = execFileSync(program, command, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const found = /\b[0-9a-f]{40}\b/.exec(output)?.[0];
  if (found === undefined) throw new Error(`gitea admin user create printed no token:\n${output}`);
  return found;
}

function apiOf(url: string, token: string): Gitea['api'] {
  return async (method, path, body) => {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { authorization: `token ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const value = text === '' ? undefined : parseJson(text);
    if (response.ok) return value;
    const words = isObject(value) ? stringOr(value['message'], '') : text.slice(0, 200);
    throw new Error(`${method} ${path}: HTTP ${String(response.status)} ${words}`);
  };
}
