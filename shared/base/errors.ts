import { explainRegistry, type RegistryCause } from './registry-causes.ts';
import { quoteForeign } from './text.ts';

/** Every way a handover can fail. Each has a scenario that produces it and a heading in TROUBLESHOOTING.md. @internal */
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

/** The one error this project throws on purpose: what happened (with the value seen) and the next step. */
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
export function invalidInput(message: string, hint = 'Correct it under `with:`.'): HandoverError {
  return new HandoverError('invalid-input', message, hint);
}

/** Whether an error says that an artifact has nothing to read, or nothing that we know, and not that it couldn't be reached. */
export function isUnreadable(error: unknown): boolean {
  return error instanceof HandoverError && unreadable.includes(error.code);
}

const unreadable: readonly ErrorCode[] = ['artifact-corrupt', 'artifact-expired', 'artifact-not-found'];

/** The message of anything that was thrown, for use inside a sentence. */
export function messageOf(error: unknown): string {
  if (!Error.isError(error)) return String(error);
  // Node's error for a host with several addresses, none of which answers, has no message of its own.
  return error.message || (systemCodeOf(error) ?? error.name);
}

/** The system error code (`ENOENT`, `ECONNRESET`, …) of anything that was thrown, or undefined. */
export function systemCodeOf(error: unknown): string | undefined {
  // Not asked whether it is an Error: one of another realm is none here (ECMA-262, "Realms").
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** The result of a look at what may change meanwhile, such as processes and files of others; `otherwise` when it throws. */
export function attempt<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch {
    return otherwise;
  }
}

/** What was caught, as an error to throw on: some libraries throw other things. */
export function asError(error: unknown): Error {
  return Error.isError(error) ? error : new Error(String(error));
}

/** The line of YAML that helps with every shortcoming of a builder. */
export const setupBuildxHint = 'Add this step before it: `- uses: docker/setup-buildx-action@v4`.';

/** A build that failed over a cache that it read. The same build without that cache may do. */
export class CacheFailure extends HandoverError {
  /** In BuildKit's words. */
  readonly why: string;

  constructor(why: string) {
    const quoted = quoteForeign(why, 500);
    super(
      'build-failed',
      `The build failed while it read layers of a cache or a base image: ${quoted}`,
      'Look whether the base images and what `cache-from` names can be read.',
    );
    this.why = quoted;
  }
}

/** What is known of a registry's failure besides its words. */
interface RegistrySeen {
  /** Of HTTP. */
  readonly status?: number | undefined;
  /** Of the connection, such as `ECONNREFUSED`. */
  readonly systemCode?: string | undefined;
  /** The part of its words that says why; undefined takes all. */
  readonly why?: string | undefined;
}

/** A push or a pull that failed. */
export class RegistryFailure extends HandoverError {
  readonly reason: RegistryCause;
  /** Another try would fail in the same way: a wrong login, a missing image. */
  readonly permanent: boolean;
  /** The client's last words, whole. */
  readonly said: string;

  /**
   * @param work what was tried, such as `The pull`
   * @param references what it was tried with
   * @param said the client's last words
   */
  constructor(work: string, references: readonly string[], said: string, seen: RegistrySeen = {}) {
    const words = `${withoutNames(seen.why ?? said, references)} ${seen.systemCode ?? ''}`;
    const { cause, permanent, hint } = explainRegistry(words, seen.status);
    super(
      'registry-failed',
      `${work} of ${references.join(', ')} failed: ${quoteForeign(said, 700) || 'no message'}`,
      hint,
    );
    this.reason = cause;
    this.permanent = permanent;
    this.said = said;
  }
}

// A repository may be called anything, "denied" too; registries name it without themselves.
function withoutNames(said: string, references: readonly string[]): string {
  const paths = references.map((name) => name.replace(/^[^/]*\//, '').replace(/[:@].*$/, ''));
  const names = [...references, ...paths].filter((name) => name !== '');
  return names.reduce((text, name) => text.replaceAll(name, ''), said).replace(/https?:\/\/[^\s"]+/g, '');
}
