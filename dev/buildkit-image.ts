import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { EngineClient } from './docker-engine.ts';
import { goPart } from './go-parts.ts';
import { writeRootFilesystem } from './test-images.ts';

/** The image that `buildx create --driver docker-container` and docker/setup-buildx-action pull for their builders. */
export const buildKitImage = 'moby/buildkit:buildx-stable-1';
const certificates = 'etc/ssl/certs/ca-certificates.crt';

/**
 * Builds BuildKit from source and imports it under the image name that buildx pulls, because nothing can be pulled here.
 * Test engines have no bridge: a builder that needs the network (registry, cache service) needs `--driver-opt network=host`.
 */
export async function provideBuildKit(engine: EngineClient): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ih-buildkit-'));
  try {
    const root = join(folder, 'root');
    await writeRootFilesystem(root);
    const [buildkit, runc] = [await goPart('buildkit'), await goPart('runc')];
    for (const name of ['buildkitd', 'buildctl']) copyFileSync(join(buildkit, name), join(root, 'bin', name));
    copyFileSync(join(runc, 'runc'), join(root, 'bin', 'buildkit-runc'));
    copyGit(root);
    if (existsSync(join('/', certificates))) {
      mkdirSync(join(root, 'etc/ssl/certs'), { recursive: true });
      copyFileSync(join('/', certificates), join(root, certificates));
    }
    const tarball = join(folder, 'root.tar');
    execFileSync('tar', ['--create', '--owner=0', '--group=0', '--file', tarball, '--directory', root, '.']);
    const changes = ['ENTRYPOINT ["buildkitd"]', 'VOLUME /var/lib/buildkit', 'ENV PATH=/bin'];
    engine.docker('import', ...changes.flatMap((change) => ['--change', change]), tarball, buildKitImage);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// Copies what BuildKit needs to fetch a Git context: git, its shared libraries, and the scripts that `git submodule` runs.
function copyGit(root: string): void {
  const ask = (program: string, ...args: readonly string[]): string =>
    execFileSync(program, args, { encoding: 'utf8' }).trim();
  const copy = (from: string, to: string): void => {
    mkdirSync(dirname(join(root, to)), { recursive: true });
    copyFileSync(from, join(root, to));
  };
  const git = ask('which', 'git');
  copy(git, 'bin/git');
  for (const [library] of ask('ldd', git).matchAll(/\/\S+/g)) copy(library, library);
  const folder = ask('git', '--exec-path');
  for (const script of ['git-submodule', 'git-sh-setup', 'git-sh-i18n'].map((name) => join(folder, name))) {
    if (existsSync(script)) copy(script, script);
  }
}
