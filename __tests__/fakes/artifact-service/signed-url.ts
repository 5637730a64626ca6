import { createHmac, randomBytes } from 'node:crypto';

export interface UrlSigner {
  sign(origin: string, blob: string, permissions: 'r' | 'cw', lifetimeMs: number, fileName: string): string;
  /** Returns the reason why a URL is invalid for reading or writing, or undefined. */
  refusal(url: URL, permission: 'r' | 'w'): string | undefined;
}

/** Signs blob URLs like a service SAS: permissions, expiry and signature in the query. */
export function urlSigner(): UrlSigner {
  const key = randomBytes(32);
  const signature = (path: string, permissions: string, expiry: string): string =>
    createHmac('sha256', key).update(`${path}\n${permissions}\n${expiry}`).digest('base64');
  return {
    sign: (origin, blob, permissions, lifetimeMs, fileName) => {
      const url = new URL(`/actions-results/${blob}`, origin);
      const expiry = new Date(Date.now() + lifetimeMs).toISOString();
      url.search = new URLSearchParams({
        sp: permissions,
        se: expiry,
        sv: '2024-11-04',
        sr: 'b',
        rscd: `attachment; filename="${fileName}"`,
        sig: signature(url.pathname, permissions, expiry),
      }).toString();
      return url.href;
    },
    refusal: (url, permission) => {
      const permissions = url.searchParams.get('sp') ?? '';
      const expiry = url.searchParams.get('se') ?? '';
      if (url.searchParams.get('sig') !== signature(url.pathname, permissions, expiry))
        return 'Signature did not match.';
      if (Date.parse(expiry) <= Date.now()) return `Signature not valid in the specified time frame: ${expiry}`;
      return permissions.includes(permission) ? undefined : 'The permission is missing.';
    },
  };
}
