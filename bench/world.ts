import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { LinkOptions } from '../__tests__/fakes/artifact-service/link.ts';
import { projectRoot } from '../dev/action-runner.ts';
import { isObject, parseJson, stringMapOf } from '../shared/base/json.ts';

const run = promisify(execFile);

/** The fake artifact service in a separate process, with TLS, behind a link of the given speed. */
export interface BenchService {
  readonly env: Readonly<Record<string, string>>;
  /** Returns the number of blob bytes downloaded so far. */
  downloaded(): Promise<number>;
  /** Returns the number of blob bytes uploaded so far, of artifacts and caches. */
  uploaded(): Promise<number>;
  /** Makes `forget` keep the current artifacts. */
  keep(): Promise<void>;
  /** Removes the content of all artifacts except those that were kept. */
  forget(): Promise<void>;
  stop(): Promise<void>;
}

/** @param tls false for services that BuildKit also uses, because BuildKit doesn't trust the fake's certificate */
export async function startService(
  link: LinkOptions,
  { tls }: { readonly tls: boolean } = { tls: true },
): Promise<BenchService> {
  const script = fileURLToPath(new URL('../__tests__/fakes/artifact-service/main.ts', import.meta.url));
  const child = spawn(process.execPath, [script, JSON.stringify({ tls, link })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<unknown> => {
    const line = await lines.next();
    return line.done === true ? undefined : parseJson(line.value);
  };
  const env = stringMapOf(await answer());
  const ask = async (line: string): Promise<unknown> => {
    child.stdin.write(`${line}\n`);
    return answer();
  };
  const moved = async (way: 'down' | 'up'): Promise<number> => {
    const traffic = await ask('');
    const bytes = isObject(traffic) ? traffic[way] : undefined;
    return typeof bytes === 'number' ? bytes : Number.NaN;
  };
  return {
    env,
    downloaded: () => moved('down'),
    uploaded: () => moved('up'),
    keep: async () => {
      await ask('keep');
    },
    forget: async () => {
      await ask('forget');
    },
    stop: async () => {
      child.stdin.end();
      await once(child, 'exit');
    },
  };
}

/** Returns the CPU seconds of all finished child processes, excluding engines (proc(5), cutime). */
export function clientCpuSeconds(): number {
  const fields = readFileSync('/proc/self/stat', 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

/** Runs a program. Throws an error with the end of its output if it fails. */
export async function sh(
  env: Readonly<Record<string, string>>,
  program: string,
  ...args: readonly string[]
): Promise<string> {
  const { stdout } = await run(program, args, {
    cwd: projectRoot,
    env: { ...process.env, ...env },
    maxBuffer: 1 << 28,
  });
  return stdout;
}

/** Runs a script with the official client in a separate process, like the upload and download actions. */
export async function officialClient(env: Readonly<Record<string, string>>, script: string): Promise<void> {
  const head = `import { DefaultArtifactClient } from '@actions/artifact';\nconst client = new DefaultArtifactClient();\n`;
  // The client keeps connections open for a few seconds. Like the actions, this script ends the process.
  await sh(env, process.execPath, '--input-type=module', '-e', `${head}${script}\nprocess.exit(0);`);
}
