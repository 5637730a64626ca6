import { spawnSync } from 'node:child_process';

const maxLength = 72;
// Older commits were made before the rule.
const newest = '50';

/**
 * Returns the newest commits' subjects that are too long. Merges are skipped. A clone without history returns none.
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
