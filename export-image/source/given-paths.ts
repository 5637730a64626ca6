import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { kindOf } from '../../shared/bytes/files.ts';
import type { BuildInputs } from '../inputs.ts';
import type { BakeSource } from '../plan/bake.ts';

// Paths that buildx opens. It would wait for a pipe's writer, and read a device endlessly. buildx reports all other problems itself, and
// some of these texts are not paths, such as a Git repository.

type Given = readonly [input: string, path: string];

/** @throws HandoverError `invalid-input` if a path of a build is a pipe or a device */
export function requireBuildPaths({ context, file, buildContexts, ssh }: BuildInputs): Promise<void> {
  const valueOf = (item: string): string => item.slice(item.indexOf('=') + 1);
  return requireNoPipes([
    ['context', context],
    ...(file === undefined
      ? []
      : ([
          ['file', file],
          ['file', join(context, file)],
        ] as const)),
    ...buildContexts.map((item) => ['build-contexts', pathOf(valueOf(item))] as const),
    ...ssh.map((item) => ['ssh', valueOf(item)] as const),
  ]);
}

/** @throws HandoverError `invalid-input` if a bake file is a pipe or a device */
export function requireBakePaths({ files }: BakeSource): Promise<void> {
  return requireNoPipes(files.map((file) => ['bake-files', file.replace(/^cwd:\/\//, '')] as const));
}

// buildx reads the index of a layout.
function pathOf(context: string): string {
  const layout = /^oci-layout:\/\/([^@:]+)/.exec(context)?.[1];
  return layout === undefined ? context : join(layout, 'index.json');
}

async function requireNoPipes(given: readonly Given[]): Promise<void> {
  for (const [input, path] of given) {
    const found = await stat(path).catch(() => undefined);
    // An SSH agent is a socket.
    if (found === undefined || found.isFile() || found.isDirectory() || found.isSocket()) continue;
    throw invalidInput(
      `The input \`${input}\` leads to ${quoteForeign(path)}, which is ${kindOf(found)}, not a file.`,
      'Write its content to a file first, and use the path of that file.',
    );
  }
}
