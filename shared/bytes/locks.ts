import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readFile, readlink } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { attempt, systemCodeOf } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

/**
 * Locks a key among the processes of this project on this host. The lock is a socket in Linux' abstract namespace (unix(7)): it ends with
 * the process, and leaves no file. On other systems, and between containers, nothing is locked.
 * @param inDoubt the result when the key can't be tried, for instance because this process can't open another socket
 * @returns the lock, or undefined when another process has it
 */
export async function lockKey(key: string, inDoubt: 'free' | 'taken'): Promise<AsyncDisposable | undefined> {
  const lock = await tryLock(key);
  if (lock === 'taken' || (lock === 'unknown' && inDoubt === 'taken')) return undefined;
  return lock === 'unknown' ? noLock : lock;
}

const noLock: AsyncDisposable = { [Symbol.asyncDispose]: () => Promise.resolve() };

/** Returns the name of a lock's socket, without the zero byte in front. */
function socketName(key: string): string {
  return `image-handover-${createHash('sha256').update(key).digest('hex').slice(0, 32)}`;
}

async function tryLock(key: string): Promise<AsyncDisposable | 'taken' | 'unknown'> {
  if (process.platform !== 'linux') return noLock;
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(lockGreeting, () => void socket.destroy());
  });
  server.listen(`\0${socketName(key)}`);
  try {
    await once(server, 'listening');
  } catch (error) {
    return systemCodeOf(error) === 'EADDRINUSE' ? 'taken' : 'unknown';
  }
  return server.unref();
}

/** Names the process that has a key, for a message. */
export async function holderOf(key: string): Promise<string> {
  return (await lockHolder(key)).words;
}

/** How long to wait for a key, in ms, by the kind of process that has it. */
export type KeyWaits = Readonly<Record<LockHolder['kind'], number>>;

// A step ends, and unlocks its keys. Other users can hold a key forever, so the wait for them is short.
const usualWaits: KeyWaits = { 'this-user': 60 * 60_000, 'other-user': 2 * 60_000, stranger: 10_000 };

interface KeyWait {
  readonly signal: AbortSignal;
  /** Called for each process that is waited for, with its description. */
  readonly onWait: (holder: string) => void;
  /** Called when a process had the key for too long, with its description. */
  readonly onGiveUp: (holder: string) => void;
  readonly waits?: KeyWaits;
}

const bindEveryMs = 100;
const lookEveryMs = 2000;

/** Locks a key like `lockKey`, once it is free. Undefined after too long, or when nothing can be locked. Throws an AbortError. */
export async function awaitKey(
  key: string,
  { signal, onWait, onGiveUp, waits = usualWaits }: KeyWait,
): Promise<AsyncDisposable | undefined> {
  const began = performance.now();
  // A busy step may once answer late, which doesn't shorten the wait.
  const since = { 'this-user': began, 'other-user': began, stranger: began };
  let lookedMs = -Infinity;
  let lastWords = '';
  for (;;) {
    const lock = await tryLock(key);
    if (lock === 'unknown') return undefined;
    if (lock !== 'taken') return lock;
    if (performance.now() - lookedMs >= lookEveryMs) {
      const { words, kind } = await lockHolder(key);
      lookedMs = performance.now();
      if (words !== lastWords) onWait(words);
      lastWords = words;
      if (kind !== 'stranger') since.stranger = lookedMs;
      if (kind === 'this-user') since['other-user'] = lookedMs;
      if (lookedMs - since[kind] >= waits[kind]) {
        onGiveUp(words);
        return undefined;
      }
    }
    await sleep(bindEveryMs, undefined, { signal });
  }
}

// Any process of this machine can bind any name in the abstract namespace, so any process may hold a lock. A step of this project
// answers connections to its lock. Linux shows which process has it: to root for all processes, to other users for their own.

/** The answer of a step of this project to a connection to its lock. */
const lockGreeting = 'image-handover\n';

/** The process that holds a lock. */
interface LockHolder {
  /** Such as `process 4711 of uid 1000 (node dist/load-image/index.js)`. */
  readonly words: string;
  /** `stranger`: no step of this project. `other-user`: one of another user, or a process that can't be seen from here. */
  readonly kind: 'this-user' | 'other-user' | 'stranger';
}

async function lockHolder(key: string): Promise<LockHolder> {
  const name = socketName(key);
  const greets = await isGreeted(name);
  const pid = processOf(name);
  if (pid === undefined)
    return { words: 'a process of another user or container', kind: greets ? 'other-user' : 'stranger' };
  // proc_pid_status(5), Uid: real, effective, saved set and filesystem; a setuid program's real one is its user's.
  const uids = (/^Uid:\s*(.*)$/m.exec(readText(`/proc/${pid}/status`))?.[1] ?? '').split(/\s+/).map(Number);
  const command = quoteForeign(readText(`/proc/${pid}/cmdline`).replaceAll('\0', ' '), 120);
  const step = uids.every((uid) => uid === process.getuid?.()) ? 'this-user' : 'other-user';
  return {
    words: `process ${pid} of uid ${String(uids[0])}${command === '' ? '' : ` (${command})`}`,
    kind: greets ? step : 'stranger',
  };
}

const answerMs = 2000;

async function isGreeted(name: string): Promise<boolean> {
  const socket = connect({ path: `\0${name}` });
  const timer = setTimeout(() => void socket.destroy(), answerMs);
  let answer = '';
  try {
    for await (const chunk of socket.setEncoding('utf8')) {
      answer += String(chunk);
      if (answer.length >= lockGreeting.length) break;
    }
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
  return answer === lockGreeting;
}

function processOf(name: string): string | undefined {
  // proc_net(5), /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path. An abstract name begins with `@`. The connections
  // have the same name; the flag says which socket takes them (linux, include/uapi/linux/net.h, __SO_ACCEPTCON).
  const listening = new RegExp(`^\\S+ \\S+ \\S+ 00010000 \\S+ \\S+ +(\\d+) @${name}$`, 'm');
  const inode = listening.exec(readText('/proc/net/unix'))?.[1];
  if (inode === undefined) return undefined;
  return attempt(() => readdirSync('/proc'), []).find((pid) => /^\d+$/.test(pid) && hasSocket(pid, inode));
}

function hasSocket(pid: string, inode: string): boolean {
  const folder = `/proc/${pid}/fd`;
  return attempt(() => readdirSync(folder), []).some(
    (name) => attempt(() => readlinkSync(`${folder}/${name}`), '') === `socket:[${inode}]`,
  );
}

function readText(path: string): string {
  return attempt(() => readFileSync(path, 'utf8'), '');
}

/** The form of a living name, as part of a regular expression. */
export const livingNamePattern = '[0-9a-f]{8}-[0-9a-f]{32}';

/**
 * Makes a name, from the scope of its lock and 128 random bits, that is unique until it is disposed of. The name alone shows whether its
 * process still runs.
 */
export async function livingName(): Promise<AsyncDisposable & { readonly name: string }> {
  const random = randomBytes(16).toString('hex');
  const scope = await lockScope();
  const name = `${scope ?? unknownScope()}-${random}`;
  const lock = await tryLock(name);
  const isLocked = scope !== undefined && typeof lock !== 'string';
  return {
    // Without a lock, the name must not have this scope: then it would look unlocked.
    name: isLocked ? name : `${unknownScope()}-${random}`,
    [Symbol.asyncDispose]: () => (typeof lock === 'string' ? Promise.resolve() : lock[Symbol.asyncDispose]()),
  };
}

/** Whether a living name's process has ended, or has disposed of it; false in doubt. */
export async function isDead(name: string): Promise<boolean> {
  if (process.platform !== 'linux' || (await isOfAnotherScope(name))) return false;
  const lock = await tryLock(name);
  if (typeof lock === 'string') return false;
  await lock[Symbol.asyncDispose]();
  return true;
}

/** Whether a living name may be from another host, boot or container, whose processes can't be seen from here. */
export async function isOfAnotherScope(name: string): Promise<boolean> {
  const scope = await lockScope();
  return scope === undefined || !name.startsWith(`${scope}-`);
}

/** Names the scope of a lock, this boot and network namespace; undefined when it is unknown. */
async function lockScope(): Promise<string | undefined> {
  const parts = [readFile('/proc/sys/kernel/random/boot_id', 'utf8'), readlink('/proc/self/ns/net')];
  const found = await Promise.all(parts).catch(() => undefined);
  return found === undefined ? undefined : createHash('sha256').update(found.join()).digest('hex').slice(0, 8);
}

function unknownScope(): string {
  return randomBytes(4).toString('hex');
}
