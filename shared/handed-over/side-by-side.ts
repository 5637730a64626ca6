import { HandoverError, messageOf } from '../base/errors.ts';
import { inPool } from '../base/pool.ts';

/** The outcome of one of several tasks, with the task's name. */
export type Outcome<T> =
  | { readonly name: string; readonly ok: true; readonly value: T }
  | { readonly name: string; readonly ok: false; readonly error: unknown };

/**
 * Runs the next step of each task that has not failed, `atOnce` tasks at a time. A failure doesn't stop the others.
 * @returns the outcomes in the same order
 */
export async function sideBySide<T, U>(
  before: readonly Outcome<T>[],
  atOnce: number,
  work: (value: T, name: string) => Promise<U>,
): Promise<readonly Outcome<U>[]> {
  const next = async (outcome: Outcome<T>): Promise<Outcome<U>> => {
    if (!outcome.ok) return outcome;
    const { name, value } = outcome;
    try {
      return { name, ok: true, value: await work(value, name) };
    } catch (error) {
      return { name, ok: false, error };
    }
  };
  const after: Outcome<U>[] = [];
  await inPool(before.entries(), atOnce, async ([position, outcome]) => {
    after[position] = await next(outcome);
  });
  return after;
}

/**
 * Returns the values if no task failed.
 * @param done a participle for the successful work, such as `loaded`
 * @throws HandoverError that lists every failed task; with their code if all have the same one, otherwise `load-failed`
 */
export function requireAll<T>(outcomes: readonly Outcome<T>[], done: string): readonly T[] {
  const failures = outcomes.filter((outcome) => !outcome.ok);
  const [first] = failures;
  if (first === undefined) return outcomes.filter((outcome) => outcome.ok).map(({ value }) => value);
  const defect = failures.find(({ error }) => !(error instanceof HandoverError));
  if (defect !== undefined || outcomes.length === 1) throw (defect ?? first).error;

  const known = failures.flatMap(({ name, error }) => (error instanceof HandoverError ? [{ name, error }] : []));
  const codes = new Set(known.map(({ error }) => error.code));
  const [code = 'load-failed'] = codes;
  const well = outcomes.flatMap(({ ok, name }) => (ok ? [name] : []));
  const rest = well.length === 0 ? '' : ` Verified and ${done}: ${well.join(', ')}.`;
  throw new HandoverError(
    codes.size === 1 ? code : 'load-failed',
    `${String(known.length)} of ${String(outcomes.length)} images could not be ${done}.${rest}` +
      known.map(({ name, error }) => `\n- ${name}: ${error.message} (${error.code})`).join(''),
    [...new Set(known.map(({ error }) => error.hint))].join(' '),
    messageOf(first.error),
  );
}
