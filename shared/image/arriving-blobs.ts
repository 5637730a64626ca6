import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Digest, parseDigest } from './digest.ts';

const lookEveryMs = 25;

/**
 * The blobs of an OCI layout that is being written, each once and as soon as it is there. Whoever writes one renames it into
 * place when it is whole: BuildKit's client does (containerd, plugins/content/local/writer.go), and so does writeOciLayout.
 * @param written settles when the layout is written; its failure ends the iteration
 */
export async function* arrivingBlobs(layout: string, written: Promise<unknown>): AsyncGenerator<Digest> {
  const state = { isWritten: false };
  written.then(
    () => (state.isWritten = true),
    () => (state.isWritten = true),
  );
  const seen = new Set<string>();
  for (let isLast = false; !isLast;) {
    // What comes between this look and the next one is seen by the next: the last look is behind the end.
    isLast = state.isWritten;
    const names = await readdir(join(layout, 'blobs', 'sha256')).catch(() => []);
    for (const name of names.filter((each) => !seen.has(each)).sort()) {
      seen.add(name);
      const digest = parseDigest(name);
      if (digest !== undefined) yield digest;
    }
    if (!isLast) await Promise.race([sleep(lookEveryMs), written]);
  }
  await written;
}

/** The same items, once the first one is there or it is known that there is none. Throws what the items throw until then. */
export async function begun<T>(items: AsyncGenerator<T>): Promise<AsyncIterable<T>> {
  const first = await items.next();
  return (async function* () {
    if (first.done !== true) yield first.value;
    yield* items;
  })();
}
