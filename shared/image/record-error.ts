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

/** @param bytes of a record that nobody would read */
export function tooLarge(bytes: number): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    `The labels of the images are too long to be handed over: the record of them would have ${String(bytes)} bytes, more than 8 MiB.`,
    'Shorten the labels, or hand over fewer images in one artifact.',
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
