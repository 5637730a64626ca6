import { setSecret } from '@actions/core';

/** Keeps a text out of the log, in both forms that a URL may carry it in. */
export function maskSecret(secret: string): void {
  setSecret(secret);
  setSecret(encodeURIComponent(secret));
}
