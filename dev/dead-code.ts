import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const knip = fileURLToPath(new URL('../node_modules/knip/bin/knip.js', import.meta.url));

/**
 * Returns unused files, exports and dependencies. A use in a test doesn't count as a use of product code.
 * An export that only tests use needs the tag `@internal`. It is allowed only if tests can't reach the behaviour in another way.
 * @param root the folder with `package.json` and `knip.jsonc`
 */
export function deadCode(root: string): readonly string[] {
  const everything = ['--include', 'files,exports,types,duplicates'];
  return [['--production'], everything].flatMap((options) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [knip, '--no-progress', ...options], {
      cwd: root,
      encoding: 'utf8',
    });
    return status === 0 ? [] : [`knip ${options.join(' ')}\n${stdout}${stderr}`.trim()];
  });
}
