/** A byte count for people, in decimal units as disks and networks are measured: `580 MB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'] as const;
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit] ?? 'B'}`;
}

/** A duration for people: `40 ms`, `0.4 s`, `12.3 s`, `2 min 5 s`. */
export function formatDuration(ms: number): string {
  if (ms < 100) return `${String(Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${String(Math.floor(seconds / 60))} min ${String(seconds % 60)} s`;
}

/** Text of someone else's on one line of a message: length bounded, and no character that controls a terminal or can't be seen. */
export function quoteForeign(text: string, limit = 300): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  return clean.length > limit ? `${clean.slice(0, limit)}…` : clean;
}

/** The same of an error, whose beginning says what was done and whose end says why that failed: the middle is left out. */
export function quoteError(text: string, limit = 500): string {
  const clean = quoteForeign(text, Infinity);
  if (clean.length <= limit) return clean;
  const half = Math.floor(limit / 2);
  return `${clean.slice(0, half)} … ${clean.slice(-half)}`;
}

/**
 * A text as lines that a workflow runner takes for text and never for a command, whoever wrote them. The runner looks for
 * `::command::` where a line begins, after white space, and for `##[command]` anywhere in it; `\r` ends a line, too (actions/runner,
 * src/Runner.Common/ActionCommand.cs; lines are .NET's StreamReader.ReadLine).
 */
export function harmlessLines(text: string): string {
  return text
    .split(/\r\n|[\r\n]/)
    .map((line) => line.replaceAll('##[', '## [').replace(/^(?=[\s\u0085]*::)/, '> '))
    .join('\n');
}
