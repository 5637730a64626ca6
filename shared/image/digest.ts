import { createHash } from 'node:crypto';

/** `sha256:` and 64 lower-case hex digits (OCI image-spec, descriptor.md, "Digests"). */
export type Digest = `sha256:${string}`;

export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && /^sha256:[0-9a-f]{64}$/.test(text);
}

/** Returns whether a text is a digest of another algorithm, such as `sha512:…` (OCI image-spec, descriptor.md, "Digests"). */
export function isOtherDigest(text: unknown): text is string {
  return (
    typeof text === 'string' && !text.startsWith('sha256:') && /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[\w=-]{32,}$/.test(text)
  );
}

/** Returns the digest in the path of a blob in an OCI layout or a tarball; undefined for another path. */
export function blobDigest(path: string): Digest | undefined {
  return parseDigest(/^blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1] ?? '');
}

/** Parses `sha256:<hex>`, or the bare hex that some clients print. Returns undefined for anything else. */
export function parseDigest(text: string): Digest | undefined {
  const full = text.includes(':') ? text : `sha256:${text}`;
  return isDigest(full) ? full : undefined;
}

export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length);
}

/** Returns the path of a blob in an OCI layout and in a tarball (OCI image-spec, image-layout.md). */
export function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

export function digestOf(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
