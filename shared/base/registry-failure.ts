import { HandoverError } from './errors.ts';
import { quoteForeign } from './text.ts';

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
