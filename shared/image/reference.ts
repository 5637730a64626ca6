import { type HandoverError, invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { type Digest, isDigest } from './digest.ts';

/** `[registry[:port]/]repository[:tag][@digest]`, in the short form that Docker prints. */
export interface Reference {
  /** Registry and path without tag and digest, lower-case, as Docker prints it (`charon`, `ghcr.io/org/charon`). */
  readonly repository: string;
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
  /** The original text, if its upper-case letters were converted to lower case. */
  readonly loweredFrom?: string | undefined;
}

/** The name of an image in an engine or registry. */
export type TaggedReference = Reference & { readonly tag: string };

/** `repository@sha256:…`: always the same image. */
export type PinnedReference = Pick<Reference, 'repository'> & { readonly digest: Digest };

// Grammar: github.com/distribution/reference, reference.go and regexp.go.
const pathComponent = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const path = new RegExp(`^${pathComponent}(?:/${pathComponent})*$`);
const domainComponent = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const domain = new RegExp(`^(?:${domainComponent}(?:\\.${domainComponent})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);

/** Returns whether a text is a valid tag: up to 128 of `[A-Za-z0-9_.-]`, not starting with `.` or `-`. */
export function isTag(text: string): boolean {
  return /^\w[\w.-]{0,127}$/.test(text);
}

/**
 * Returns whether a text can only be meant as an image ID: complete, or its first 12 or more digits (`docker image ls` prints 12),
 * with or without `sha256:`. A repository whose name consists only of such digits needs an explicit tag.
 */
export function isImageId(text: string): boolean {
  return /^(?:sha256:)?[0-9a-f]{12,64}$/.test(text);
}

// Engines never accept this as a name (distribution/reference, ParseAnyReference).
function isWholeId(text: string): boolean {
  return /^[0-9a-f]{64}$/i.test(text);
}

/**
 * Parses one reference. Converts upper-case letters in the repository to lower case, as registries require.
 * @throws HandoverError `invalid-input` with the reason
 */
export function parseReference(text: string): Reference {
  const given = text.trim();
  if (given === '') throw invalid(text, 'it is empty');
  if (isWholeId(given) || (given.startsWith('sha256:') && isImageId(given))) {
    throw invalid(text, 'it is an image ID, not a reference');
  }
  // A colon before the last slash belongs to a registry's port.
  const [, name = '', tag, digest] = /^([^@]*?)(?::([^:/@]*))?(?:@(.*))?$/s.exec(given) ?? [];
  if (tag !== undefined && !isTag(tag)) {
    throw invalid(text, `"${quoteForeign(tag)}" is not a tag: at most 128 of letters, digits, "_", "." and "-"`);
  }
  if (digest !== undefined && !isDigest(digest)) {
    throw invalid(text, `"${quoteForeign(digest)}" is not a digest of the form sha256:<64 hex digits>`);
  }
  const repository = parseRepository(name.toLowerCase(), text);
  // In any spelling, an engine would search for an image ID or its first digits (moby, daemon/images/image.go).
  if (repository === 'sha256') throw invalid(text, 'it would be an image ID, not a reference');
  return { repository, tag, digest, loweredFrom: name === name.toLowerCase() ? undefined : given };
}

function parseRepository(name: string, text: string): string {
  const registry = registryOf(name);
  const rest = registry === undefined ? name : name.slice(registry.length + 1);
  if (registry !== undefined && !domain.test(registry)) {
    throw invalid(text, `"${quoteForeign(registry)}" is not a registry host`);
  }
  if (!path.test(rest)) throw invalid(text, `"${quoteForeign(rest)}" is not a repository`);
  const library = registry === undefined && !rest.includes('/') ? 'library/' : '';
  if (library.length + rest.length > 255) throw invalid(text, 'its repository is longer than 255 characters');
  return familiar(name);
}

/** Returns the registry that a repository begins with; undefined for a Docker Hub repository in its short form. */
export function registryOf(repository: string): string | undefined {
  const first = /^[^/]*(?=\/)/.exec(repository)?.[0] ?? '';
  return /[.:]/.test(first) || first === 'localhost' ? first : undefined;
}

/** Returns the registry of a repository; for Docker Hub, `docker.io`. */
export function registryHost(repository: string): string {
  return registryOf(repository) ?? 'docker.io';
}

// docker.io/library/x, docker.io/x and library/x are the same repository, which `docker image ls` prints as x. The library/
// is kept if the rest would be an image ID.
function familiar(repository: string): string {
  const path = repository.replace(/^(?:index\.)?docker\.io\//, '');
  const short = /^library\/([^/]+)$/.exec(path)?.[1] ?? path;
  return isWholeId(short) ? `library/${short}` : short;
}

function invalid(text: string, why: string): HandoverError {
  return invalidInput(
    `"${quoteForeign(text)}" is not an image reference: ${why}.`,
    'Give a reference such as charon:local or ghcr.io/org/charon:1.2.3.',
  );
}

/** Returns the text that Docker prints and accepts: `charon:local`. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
  return `${reference.repository}${tag}${digest}`;
}

/** Returns a name that several of these references share, in its usual spelling; undefined if all names differ. */
export function repeatedName(references: readonly Reference[]): string | undefined {
  const names = references.map(formatReference);
  return names.find((name, position) => names.indexOf(name) !== position);
}

/** Returns the full reference, with registry and `library/`: `docker.io/library/charon:local`. */
export function canonicalReference(reference: Reference): string {
  if (registryOf(reference.repository) !== undefined) return formatReference(reference);
  const library = reference.repository.includes('/') ? '' : 'library/';
  return `docker.io/${library}${formatReference(reference)}`;
}

/**
 * Parses the name of a handed-over image: tagged (`latest` if no tag is given), without a digest.
 * @throws HandoverError `invalid-input`
 */
export function parseTaggedReference(text: string): TaggedReference {
  const reference = parseReference(text);
  if (reference.digest !== undefined) {
    throw invalid(text, 'an image cannot be stored under a digest; give a tag instead');
  }
  return { ...reference, tag: reference.tag ?? 'latest' };
}

/**
 * Parses a reference by digest. Drops its tag, if any.
 * @throws HandoverError `invalid-input`
 */
export function parsePinnedReference(text: string): PinnedReference {
  const { repository, digest } = parseReference(text);
  if (digest !== undefined) return { repository, digest };
  throw invalidInput(
    `"${quoteForeign(text)}" has no digest: the image of a tag can change between two jobs.`,
    'Give a reference by digest, such as ${{ needs.build.outputs.pushed-reference }}.',
  );
}
