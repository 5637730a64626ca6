import { quoteForeign } from './text.ts';

/** Every way a handover can fail. Each has a scenario that produces it and a heading in TROUBLESHOOTING.md. */
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

/** Whether an error says that an artifact has nothing to read, or nothing that we know, and not that it couldn't be reached. */
export function isUnreadable(error: unknown): boolean {
  return error instanceof HandoverError && unreadable.includes(error.code);
}

const unreadable: readonly ErrorCode[] = ['artifact-corrupt', 'artifact-expired', 'artifact-not-found'];

/** The message of anything that was thrown, for use inside a sentence. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node's error for a host with several addresses, none of which answers, has no message of its own.
  return error.message || (systemCodeOf(error) ?? error.name);
}

/** The system error code (`ENOENT`, `ECONNRESET`, …) of anything that was thrown, or undefined. */
export function systemCodeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** What was caught, as an error to throw on: some libraries throw other things. */
export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** The line of YAML that helps with every shortcoming of a builder. */
export const setupBuildxHint = 'Add this step before it: `- uses: docker/setup-buildx-action@v4`.';

/** A push or a pull that failed. */
export class RegistryFailure extends HandoverError {
  /** Another try would fail in the same way: a wrong login, a missing image. */
  readonly permanent: boolean;

  /**
   * @param work what was tried, such as `The pull`
   * @param references what it was tried with
   * @param said the client's last words
   */
  constructor(work: string, references: readonly string[], said: string) {
    super(
      'registry-failed',
      `${work} of ${references.join(', ')} failed: ${quoteForeign(said, 500) || 'no message'}`,
      'Log in before this step (`docker/login-action`); ghcr.io also needs `permissions: packages: write` to push and ' +
        '`packages: read` to pull.',
    );
    this.permanent = permanent.test(withoutNames(said, references));
  }
}

// The words of the registry API (distribution-spec, "Error Codes") and of the docker clients for a refused login.
const permanent =
  /\b(?:unauthorized|forbidden|denied|no basic auth credentials|authorization failed|authentication required|manifest unknown|name (?:unknown|invalid)|not found|no matching manifest|invalid reference)\b/i;

// A repository may be called anything, "denied" too.
function withoutNames(said: string, references: readonly string[]): string {
  return references.reduce((text, name) => text.replaceAll(name, ''), said).replace(/https?:\/\/[^\s"]+/g, '');
}
