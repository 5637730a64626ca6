import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { emptyState, type FakeState, readState, writeState } from './state.ts';

/** A runner whose `docker` and `podman` are the fake command. */
export interface FakeDocker {
  /** Environment with the fake first on PATH. */
  readonly env: Readonly<Record<string, string>>;
  readonly directory: string;
  state(): FakeState;
  set(change: Partial<FakeState>): void;
  remove(): Promise<void>;
}

export async function fakeDocker(initial: Partial<FakeState> = {}): Promise<FakeDocker> {
  const directory = await mkdtemp(join(tmpdir(), 'fake-docker-'));
  const file = join(directory, 'state.json');
  const bin = join(directory, 'bin');
  await mkdir(bin);
  // It runs a dozen times for one step: what Node makes of its source is kept (nodejs.org/api/module.html, "Module compile cache").
  const cache = fileURLToPath(new URL('../../../build/compile-cache', import.meta.url));
  const script = fileURLToPath(new URL('docker.ts', import.meta.url));
  for (const name of ['docker', 'podman']) {
    const command = join(bin, name);
    const run = `exec "${process.execPath}" --disable-warning=ExperimentalWarning "${script}" "$@"`;
    await writeFile(command, `#!/bin/sh\nexport FAKE_ENGINE=${name} NODE_COMPILE_CACHE="${cache}"\n${run}\n`);
    await chmod(command, 0o755);
  }
  writeState(file, { ...emptyState, ...initial });
  return {
    env: { PATH: `${bin}:/usr/bin:/bin`, FAKE_DOCKER_STATE: file },
    directory,
    state: () => readState(file),
    set: (change) => {
      writeState(file, { ...readState(file), ...change });
    },
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}
