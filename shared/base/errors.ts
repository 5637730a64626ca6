import { explainRegistry } from './registry-causes.ts';
import { quoteForeign } from './text.ts';

/** All error codes. Each has a scenario that produces it, and a heading in TROUBLESHOOTING.md. @internal */
export const errorCodes = [
  'invalid-input',
  'docker-unavailable',
  'cluster-not-found',
  'unsupported-host',
  'builder-unsupported',
  'build-failed',
  'cache-missed',
  'image-not-found',
  'tarball-invalid',
  'not-enough-space',
  'artifact-name-taken',
  'artifact-not-found',
  'artifact-expired',
  'artifact-corrupt',
  'transfer-failed',
  'load-failed',
  'image-missing',
  'image-mismatch',
  'platform-mismatch',
  'revision-mismatch',
  'registry-failed',
  'run-not-found',
  'timed-out',
  'cancelled',
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** The error that this project throws: what happened, with the value seen, and the next step. */
export class HandoverError extends Error {
  override readonly name = 'HandoverError';
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.hint = hint;
  }
}

/** Returns the error for an input. */
export function invalidInput(message: string, hint = 'Correct it under `with:`.', cause?: unknown): HandoverError {
  return new HandoverError('invalid-input', message, hint, cause);
}

/** Returns the error for an artifact that can't be what export-image made. */
export function corruptArtifact(message: string, cause?: unknown): HandoverError {
  return new HandoverError('artifact-corrupt', message, 'Run the job that exports the image again.', cause);
}

const madeAgain = 'The tarball was edited: make it again with docker save.';

/** Returns the error for a tarball or a layout that can't be used as it is. */
export function invalidTarball(message: string, hint = madeAgain, cause?: unknown): HandoverError {
  return new HandoverError('tarball-invalid', message, hint, cause);
}

/** Returns whether an error means that an artifact has no readable content. Failures to reach the artifact don't. */
export function isUnreadable(error: unknown): boolean {
  return error instanceof HandoverError && unreadable.includes(error.code);
}

const unreadable: readonly ErrorCode[] = ['artifact-corrupt', 'artifact-expired', 'artifact-not-found'];

/** Returns the message of anything that was thrown. */
export function messageOf(error: unknown): string {
  if (!Error.isError(error)) return String(error);
  // Node's error for a host with several unreachable addresses has no message.
  return error.message || (systemCodeOf(error) ?? error.name);
}

/** Returns the system error code (`ENOENT`, `ECONNRESET`, …) of anything that was thrown, or undefined. */
export function systemCodeOf(error: unknown): string | undefined {
  // An Error of another realm is not an instance of this realm's (ECMA-262, "Realms").
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** Returns the result of `look`, such as a read of a file that may disappear; `otherwise` if it throws. */
export function attempt<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch {
    return otherwise;
  }
}

/** Returns a caught value as an error. Some libraries throw other values. */
export function asError(error: unknown): Error {
  return Error.isError(error) ? error : new Error(String(error));
}

/** The hint for all limits of the default builder. */
export const setupBuildxHint = 'Add this step before it: `- uses: docker/setup-buildx-action@v4`.';

/** A build that failed because of a cache that it read. It may succeed without that cache. */
export class CacheFailure extends HandoverError {
  readonly why: string;

  constructor(why: string) {
    const quoted = quoteForeign(why, 500);
    super(
      'build-failed',
      `The build failed while it read layers of a cache or a base image: ${quoted}`,
      'Check whether the base images and the caches in `cache-from` can be read.',
    );
    this.why = quoted;
  }
}

/** Facts about a registry's failure besides its message. */
interface RegistrySeen {
  readonly status?: number | undefined;
  /** The connection's error, such as `ECONNREFUSED`. */
  readonly systemCode?: string | undefined;
  /** The part of the message with the cause; undefined is all of it. */
  readonly why?: string | undefined;
}

/** A push or a pull that failed. */
export class RegistryFailure extends HandoverError {
  /** Whether the registry lacks a blob that it reported as present. */
  readonly isBlobLost: boolean;
  /** Whether another attempt would fail in the same way: a wrong login, a missing image. */
  readonly permanent: boolean;
  /** The client's full message. */
  readonly said: string;

  /**
   * @param work such as `The pull`
   * @param references the images
   * @param said the client's message
   */
  constructor(work: string, references: readonly string[], said: string, seen: RegistrySeen = {}) {
    const words = `${withoutNames(seen.why ?? said, references)} ${seen.systemCode ?? ''}`;
    const { isBlobLost = false, permanent, hint } = explainRegistry(words, seen.status);
    super(
      'registry-failed',
      `${work} of ${references.join(', ')} failed: ${quoteForeign(said, 700) || 'no message'}`,
      hint,
    );
    this.isBlobLost = isBlobLost;
    this.permanent = permanent;
    this.said = said;
  }
}

// A repository can have any name, even "denied". Registries omit their own name.
function withoutNames(said: string, references: readonly string[]): string {
  const paths = references.map((name) => name.replace(/^[^/]*\//, '').replace(/[:@].*$/, ''));
  const names = [...references, ...paths].filter((name) => name !== '');
  return names.reduce((text, name) => text.replaceAll(name, ''), said).replace(/https?:\/\/[^\s"]+/g, '');
}
