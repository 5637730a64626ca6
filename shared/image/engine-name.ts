import { HandoverError } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

/** The container engines that can hold an image here; each is the name of its command, too. */
export type EngineName = 'docker' | 'podman';

/** @throws HandoverError `invalid-input` when the text is neither `docker` nor `podman` */
export function parseEngineName(text: string): EngineName {
  const name = text.trim().toLowerCase();
  if (name === 'docker' || name === 'podman') return name;
  throw new HandoverError(
    'invalid-input',
    `The input \`engine\` is "${quoteForeign(text)}"; expected docker or podman.`,
    'Set `engine` to the command that your jobs use, or remove the line for docker.',
  );
}

/**
 * Registries are reached through docker alone.
 * @param what the input that asks for one, with its value
 * @throws HandoverError `invalid-input` for another engine
 */
export function requireDocker(engine: EngineName, what: string): void {
  if (engine === 'docker') return;
  throw new HandoverError(
    'invalid-input',
    `\`engine: ${engine}\` and ${what} are given together, but registries are reached through docker only.`,
    `Leave one of them out, and use ${engine} itself in a step of its own.`,
  );
}
