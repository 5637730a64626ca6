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
  readonly images: readonly FakeImage[];
  /** Every command so far. */
  readonly calls: readonly (readonly string[])[];
  /** Folder with the OCI layout that a build gives. */
  readonly buildLayout?: string;
  /** Tarball that `docker save` gives. */
  readonly saved?: string;
  /** What a pull finds, by reference. */
  readonly registry: Readonly<Record<string, FakeImage>>;
  /** Lines of rawjson progress that a build prints. */
  readonly progress: readonly string[];
  readonly fail?: 'none' | 'build' | 'load' | 'unpack' | 'info' | 'silent-load' | 'buildx' | 'hang-build' | 'hang-info';
}

export const emptyState: FakeState = {
  store: 'classic',
  driver: 'docker-container',
  osType: 'linux',
  images: [],
  calls: [],
  registry: {},
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
