import { readFileSync, readlinkSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { attempt } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

// Any process of this machine can bind any name in the abstract namespace, so any process may hold a lock. A step of this project
// answers connections to its lock. Linux shows which process has it: to root for all processes, to other users for their own.

/** The answer of a step of this project to a connection to its lock. */
export const lockGreeting = 'image-handover\n';

/** The process that holds a lock. */
export interface LockHolder {
  /** Such as `process 4711 of uid 1000 (node dist/load-image/index.js)`. */
  readonly words: string;
  /** `stranger`: no step of this project. `other-user`: one of another user, or a process that can't be seen from here. */
  readonly kind: 'this-user' | 'other-user' | 'stranger';
}

/** @param socketName name of the lock's socket in Linux' abstract namespace (unix(7)), without the zero byte in front */
export async function lockHolder(socketName: string): Promise<LockHolder> {
  const [greets, found] = [await isGreeted(socketName), processOf(socketName)];
  const isThisUser = found?.uids.every((uid) => uid === process.getuid?.()) === true;
  return {
    words: found?.words ?? 'a process of another user or container',
    kind: !greets ? 'stranger' : isThisUser ? 'this-user' : 'other-user',
  };
}

const answerMs = 2000;

async function isGreeted(socketName: string): Promise<boolean> {
  const socket = connect({ path: `\0${socketName}` });
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

interface FoundProcess {
  readonly words: string;
  readonly uids: readonly number[];
}

function processOf(socketName: string): FoundProcess | undefined {
  // proc_net(5), /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path. An abstract name begins with `@`. The connections
  // have the same name; the flag says which socket takes them (linux, include/uapi/linux/net.h, __SO_ACCEPTCON).
  const listening = new RegExp(`^\\S+ \\S+ \\S+ 00010000 \\S+ \\S+ +(\\d+) @${socketName}$`, 'm');
  const inode = listening.exec(readText('/proc/net/unix'))?.[1];
  if (inode === undefined) return undefined;
  const pid = attempt(() => readdirSync('/proc'), [])
    .filter((name) => /^\d+$/.test(name))
    .find((name) => hasSocket(name, inode));
  return pid === undefined ? undefined : describeProcess(pid);
}

function hasSocket(pid: string, inode: string): boolean {
  const folder = `/proc/${pid}/fd`;
  return attempt(() => readdirSync(folder), []).some(
    (name) => attempt(() => readlinkSync(`${folder}/${name}`), '') === `socket:[${inode}]`,
  );
}

function describeProcess(pid: string): FoundProcess {
  // proc_pid_status(5), Uid: real, effective, saved set and filesystem; a setuid program's real one is its user's.
  const uids = (/^Uid:\s*(.*)$/m.exec(readText(`/proc/${pid}/status`))?.[1] ?? '').split(/\s+/).map(Number);
  const command = quoteForeign(readText(`/proc/${pid}/cmdline`).replaceAll('\0', ' '), 120);
  return { words: `process ${pid} of uid ${String(uids[0])}${command === '' ? '' : ` (${command})`}`, uids };
}

function readText(path: string): string {
  return attempt(() => readFileSync(path, 'utf8'), '');
}
