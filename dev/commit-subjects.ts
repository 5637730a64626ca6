import { spawnSync } from 'node:child_process';

const maxLength = 72;
// Older commits predate the rule.
const newest = '50';

/**
 * Returns the subjects of recent commits that are too long. Skips merges. Returns none in a clone without history.
 * @param root a folder in the clone
 */
export function longSubjects(root: string): readonly string[] {
  const options = ['log', '--no-merges', `--max-count=${newest}`, '--format=%h %s'];
  const { stdout } = spawnSync('git', options, { cwd: root, encoding: 'utf8' });
  return stdout
    .split('\n')
    .filter((line) => line.replace(/^\S+ /, '').length > maxLength)
    .map((line) => `${line}: the subject has more than ${String(maxLength)} characters`);
}
