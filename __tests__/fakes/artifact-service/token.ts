import { createHmac, randomBytes } from 'node:crypto';

/** The IDs of a job in the artifact service. Each attempt of a run has its own. */
export interface JobIdentity {
  /** ID of the run, shared by its attempts. */
  readonly runId: string;
  readonly runBackendId: string;
  readonly jobBackendId: string;
}

export interface TokenMint {
  issue(job: JobIdentity, cache?: CacheAccess): string;
  /** Returns the token's access to the cache, or undefined for an unknown token. */
  cacheAccess(token: string): CacheAccess | undefined;
  /** Returns the job of the token, or undefined for an unknown token. */
  verify(token: string): JobIdentity | undefined;
}

/** Access of a job to the cache: `read` on low-trust events, `none` with `cache-mode: none`. */
export type CacheAccess = 'write' | 'read' | 'none';

// The caches that a job can read and write. BuildKit's `type=gha` rejects tokens without scopes or times (tonistiigi/go-actions-cache).
const scopes = {
  write: [{ Scope: 'refs/heads/main', Permission: 3 }],
  read: [{ Scope: 'refs/heads/main', Permission: 1 }],
  none: [],
};

/** Issues tokens like the runner's: JWTs with the IDs of the run and the job in the claim `scp`. */
export function tokenMint(): TokenMint {
  const key = randomBytes(32);
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const sign = (text: string): string => createHmac('sha256', key).update(text).digest('base64url');
  const issued = new Map<string, { readonly job: JobIdentity; readonly cache: CacheAccess }>();
  const known = (token: string): { readonly job: JobIdentity; readonly cache: CacheAccess } | undefined => {
    const [header, payload, signature] = token.split('.');
    return sign(`${header ?? ''}.${payload ?? ''}`) === signature ? issued.get(token) : undefined;
  };
  return {
    issue: (job, cache = 'write') => {
      const scp = `Actions.GenericRead:00000000-0000-0000-0000-000000000000 Actions.Results:${job.runBackendId}:${job.jobBackendId}`;
      const nbf = Math.floor(Date.now() / 1000) - 60;
      const claims = { scp, iss: 'stand-in', ac: JSON.stringify(scopes[cache]), nbf, exp: nbf + 6 * 3600 };
      const unsigned = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
      const token = `${unsigned}.${sign(unsigned)}`;
      issued.set(token, { job, cache });
      return token;
    },
    verify: (token) => known(token)?.job,
    cacheAccess: (token) => known(token)?.cache,
  };
}
