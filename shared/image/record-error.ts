import { HandoverError } from '../errors.ts';
import { quoteForeign } from '../text.ts';

/** The record's file name within the artifact. */
export const recordName = 'image-handover.json';

/** The version of its format. */
export const recordSchema = 1;

/** @param found what the record says its schema is */
export function wrongSchema(found: unknown): HandoverError {
  const newer = typeof found === 'number' && found > recordSchema;
  return new HandoverError(
    'artifact-corrupt',
    `The record ${recordName} has schema ${quoteForeign(String(found))}; this version reads schema ${String(recordSchema)}.`,
    newer
      ? 'The artifact was made by a newer export-image: use the same version of both actions.'
      : 'Use the same version of export-image and load-image.',
  );
}

/** @param why in words that go on after a colon */
export function corrupt(why: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'artifact-corrupt',
    `The record ${recordName} in the artifact can't be used: ${why}.`,
    'Run the job that exports the image again.',
    cause,
  );
}
