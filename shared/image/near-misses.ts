/**
 * Local references that a reader may have meant: the same repository under another tag, or the same text in another
 * case. Both sides are as docker prints them.
 */
export function nearMisses(wanted: string, local: readonly string[]): readonly string[] {
  const repository = (reference: string): string => reference.slice(0, tagColon(reference)).toLowerCase();
  const last = (reference: string): string => repository(reference).split('/').at(-1) ?? '';
  const same = local.filter((reference) => repository(reference) === repository(wanted));
  return same.length > 0 ? same : local.filter((reference) => last(reference) === last(wanted));
}

function tagColon(reference: string): number {
  const colon = reference.lastIndexOf(':');
  return colon > reference.lastIndexOf('/') ? colon : reference.length;
}
