import { createHmac, randomBytes } from 'node:crypto';

/** Who a job is to the artifact service: each attempt of a run has ids of its own. */
export interface JobIdentity {
  /** The run, over all its attempts. */
  readonly runId: string;
  readonly runBackendId: string;
  readonly jobBackendId: string;
}

export interface TokenMint {
  issue(job: JobIdentity, cache?: CacheAccess): string;
  /** What a token may do in the cache; undefined when it wasn't issued here. */
  cacheAccess(token: string): CacheAccess | undefined;
  /** The job a token was issued to, or undefined when it wasn't issued here. */
  verify(token: string): JobIdentity | undefined;
}

/** What a job may do in the cache: `read` on low-trust events, `none` with `cache-mode: none`. */
export type CacheAccess = 'write' | 'read' | 'none';

// Which caches a job may read and write: BuildKit's `type=gha` takes no token without it, nor without its times (tonistiigi/go-actions-cache).
const scopes = {
  write: [{ Scope: 'refs/heads/main', Permission: 3 }],
  read: [{ Scope: 'refs/heads/main', Permission: 1 }],
  none: [],
};

/** Issues tokens of the form that the runner gives out: a JWT whose claim `scp` names run and job. */
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
