import { setTimeout as sleep } from 'node:timers/promises';

/**
 * For those who read what others write meanwhile: to be asked before each look whether it is worth while. It waits between two
 * looks, and the last one is behind the end, so that nothing is missed.
 * @param written settles when nobody writes any more; its failure is thrown
 */
export function untilWritten(written: Promise<unknown>, waitMs: number): () => Promise<boolean> {
  let [isFirst, isLast, isOver] = [true, false, false];
  const end = (): void => void (isOver = true);
  written.then(end, end);
  return async () => {
    if (isLast) return false;
    if (!isFirst) await Promise.race([sleep(waitMs), written]);
    isFirst = false;
    isLast = isOver;
    return true;
  };
}
