import { isLoopback } from '../http/proxies.ts';
import { canonicalReference } from '../image/reference.ts';

/** Returns a repository's path in its registry, with `library/` for Docker Hub. */
export function pathOf(repository: string): string {
  const whole = canonicalReference({ repository });
  return whole.slice(whole.indexOf('/') + 1);
}

// distribution, "Token Scope Documentation".
export const pulls = (repository: string): string => `repository:${pathOf(repository)}:pull`;
export const pushes = (repository: string): string => `repository:${pathOf(repository)}:pull,push`;

// The targets of redirects and of uploads (`Location`; distribution-spec 1.1, "Pushing a blob monolithically"; RFC 9110, section 10.2.2).

/**
 * Resolves a `Location`. An address of the registry itself gets the registry's own origin: behind a proxy that ends TLS, the registry may
 * not know that it has TLS, and the loopback interface has three names.
 * @param asked URL of the request
 * @param own origin of the registry
 * @returns undefined unless it is an address of HTTP
 */
export function resolveLocation(location: string, asked: string, own: URL): URL | undefined {
  if (location === '' || !URL.canParse(location, asked)) return undefined;
  const url = new URL(location, asked);
  url.hash = '';
  if (url.host === own.host || isSameLoopback(url, own)) return new URL(url.pathname + url.search, own);
  return url.protocol === 'https:' || url.protocol === 'http:' ? url : undefined;
}

const loopbackNames: readonly string[] = ['localhost', '127.0.0.1', '[::1]'];

function isSameLoopback(url: URL, own: URL): boolean {
  return url.port === own.port && [url, own].every(({ hostname }) => loopbackNames.includes(hostname));
}

/** Whether a layer may be sent there: over TLS, to the registry itself, or to this machine if the registry has no TLS. */
export function mayUploadTo(url: URL, own: URL): boolean {
  return url.protocol === 'https:' || url.origin === own.origin || (own.protocol === 'http:' && isLoopback(url.host));
}

/** Whether to follow a redirect of a GET or HEAD: never from TLS to an address without TLS. */
export function mayReadFrom(url: URL, own: URL): boolean {
  return url.protocol === 'https:' || own.protocol === 'http:';
}

/** Returns an address for a message, without its query, which may be a signature, and its user, which may be a login. */
export function withoutSecrets(location: string): string {
  return location.replace(/[?#].*$/s, '').replace(/\/\/[^/]*@/, '//');
}

/** Adds the blob's digest to the address of its upload, and keeps the query unchanged, which may be signed. */
export function withDigest(place: URL, digest: string): string {
  const address = place.href.replace(/\?$/, '');
  return `${address}${place.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`;
}
