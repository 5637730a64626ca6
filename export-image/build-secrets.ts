import { HandoverError } from '../shared/errors.ts';
import { quoteForeign } from '../shared/text.ts';
import type { BuildInputs } from './inputs.ts';

/** A secret that buildx reads itself: out of a file, or out of a variable of the step. */
export interface PassedSecret {
  readonly id: string;
  readonly from: 'src' | 'env';
  /** The file's path or the variable's name. */
  readonly place: string;
}

/** A secret of the build. A value goes into a file of its own, never onto a command line. */
export type BuildSecret = PassedSecret | { readonly id: string; readonly from: 'value'; readonly value: string };

/**
 * The secrets of all three inputs. An empty one is left out with a warning, as docker/build-push-action does: a pull request
 * from a fork has no secrets.
 * @throws HandoverError `invalid-input` for an item of another form, without showing it
 */
export function parseSecrets(build: BuildInputs, warnings: string[]): readonly BuildSecret[] {
  const { secrets, secretFiles, secretEnvs } = build;
  return [
    ...pairs(secrets, 'secrets', 'value', warnings).map(([id, value]) => ({ id, from: 'value', value }) as const),
    ...pairs(secretFiles, 'secret-files', 'path', warnings).map(([id, place]) => ({ id, from: 'src', place }) as const),
    ...pairs(secretEnvs, 'secret-envs', 'VARIABLE', warnings).map(
      ([id, place]) => ({ id, from: 'env', place }) as const,
    ),
  ];
}

/** The item as `--secret` takes it, which is CSV. */
export function formatSecret({ id, from, place }: PassedSecret): string {
  const field = `${from}=${place}`;
  return `id=${id},${/[",]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field}`;
}

function pairs(
  items: readonly string[],
  input: string,
  what: string,
  warnings: string[],
): readonly (readonly [string, string])[] {
  return items.flatMap((item, position) => {
    const at = item.indexOf('=');
    const id = item.slice(0, at).trim();
    if (at < 0 || id === '') throw notAPair(input, what, position + 1);
    const value = item.slice(at + 1);
    if (value.trim() !== '') return [[id, value] as const];
    warnings.push(
      `The secret "${quoteForeign(id)}" in the input \`${input}\` is empty: it is left out. A repository that doesn't have a ` +
        'secret, and a pull request from a fork, pass it on empty.',
    );
    return [];
  });
}

function notAPair(input: string, what: string, number: number): HandoverError {
  return new HandoverError(
    'invalid-input',
    `Item ${String(number)} of the input \`${input}\` is not of the form id=${what} (it is not shown here).`,
    `Write one id=${what} a line. A value of several lines stands in double quotes, together with its id: "id=first line…".`,
  );
}
