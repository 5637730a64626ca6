/** Formats a byte count in decimal units: `580 MB`. */
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

/** Formats a duration: `40 ms`, `0.4 s`, `12.3 s`, `2 min 5 s`. */
export function formatDuration(ms: number): string {
  if (ms < 100) return `${String(Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${String(Math.floor(seconds / 60))} min ${String(seconds % 60)} s`;
}

/** Returns foreign text as part of one line: shortened, and without control characters and invisible characters. */
export function quoteForeign(text: string, limit = 300): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  return clean.length > limit ? `${clean.slice(0, limit)}…` : clean;
}

/** Does the same for an error, but omits its middle: the beginning shows the work, and the end shows the cause. */
export function quoteError(text: string, limit = 500): string {
  const clean = quoteForeign(text, Infinity);
  if (clean.length <= limit) return clean;
  const half = Math.floor(limit / 2);
  return `${clean.slice(0, half)} … ${clean.slice(-half)}`;
}

/**
 * Returns foreign text as lines without workflow commands. The runner looks for `::command::` at the beginning of a line, after white
 * space, and for `##[command]` anywhere. `\r` also ends a line (actions/runner, src/Runner.Common/ActionCommand.cs).
 */
export function harmlessLines(text: string): string {
  return text
    .split(/\r\n|[\r\n]/)
    .map((line) => line.replaceAll('##[', '## [').replace(/^(?=[\s\u0085]*::)/, '> '))
    .join('\n');
}
