import { HandoverError } from '../errors.ts';
import { quoteForeign } from '../text.ts';

/**
 * The characters that the artifact service refuses (actions/toolkit, artifact, path-and-artifact-name-validation.ts).
 * @throws HandoverError `invalid-input`
 */
export function requireArtifactName(name: string): string {
  const wrong = /[":<>|*?\r\n\\/]/.exec(name)?.[0];
  if (wrong === undefined && name.trim() !== '') return name;
  const why = wrong === undefined ? 'it is empty' : `it contains ${JSON.stringify(wrong)}`;
  throw new HandoverError(
    'invalid-input',
    `"${quoteForeign(name)}" can't be the name of an artifact: ${why}.`,
    'Set `artifact-name` without any of " : < > | * ? \\ / and without line ends, such as docker-image-pr-1.',
  );
}
