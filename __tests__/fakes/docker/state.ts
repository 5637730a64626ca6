import { existsSync, readFileSync, writeFileSync } from 'node:fs';

export interface FakeImage {
  readonly imageId: string;
  readonly tags: readonly string[];
  readonly diffIds: readonly string[];
  readonly architecture: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** What the fake engine holds and how it behaves; kept in a file, so that each docker command is a process of its own. */
export interface FakeState {
  readonly store: 'classic' | 'containerd';
  readonly driver: string;
  readonly osType: string;
  /** As `docker info` names it. */
  readonly architecture: string;
  readonly images: readonly FakeImage[];
  /** Every command so far; one of podman begins with `podman`. */
  readonly calls: readonly (readonly string[])[];
  /** Folder with the OCI layout that a build gives. */
  readonly buildLayout?: string;
  /** Tarball that `docker save` gives. */
  readonly saved?: string;
  /** Lines of rawjson progress that a build prints. */
  readonly progress: readonly string[];
  readonly fail?:
    'none' | 'build' | 'load' | 'unpack' | 'info' | 'silent-load' | 'buildx' | 'hang-build' | 'lost-layers';
}

export const emptyState: FakeState = {
  store: 'classic',
  driver: 'docker-container',
  osType: 'linux',
  architecture: 'x86_64',
  images: [],
  calls: [],
  progress: [],
};

export function readState(file: string): FakeState {
  // The file is written by writeState alone.
  const state: FakeState = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : emptyState;
  return state;
}

export function writeState(file: string, state: FakeState): void {
  writeFileSync(file, JSON.stringify(state));
}
