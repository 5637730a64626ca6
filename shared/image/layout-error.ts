import { HandoverError } from '../base/errors.ts';

/** What's wrong with an OCI layout that a builder or an engine has written for us. */
export function invalidLayout(message: string): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    message,
    'Run the export again; if it repeats, report the builder and its version.',
  );
}
