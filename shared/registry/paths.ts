import { canonicalReference } from '../image/reference.ts';

/** A repository's path in its registry: `library/` is spelled out on Docker Hub. */
export function pathOf(repository: string): string {
  const whole = canonicalReference({ repository });
  return whole.slice(whole.indexOf('/') + 1);
}

// distribution, "Token Scope Documentation".
export const pulls = (repository: string): string => `repository:${pathOf(repository)}:pull`;
export const pushes = (repository: string): string => `repository:${pathOf(repository)}:pull,push`;
