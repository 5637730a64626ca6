import { existsSync, mkdirSync, readFileSync, renameSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

export interface FakeImage {
  readonly imageId: string;
  readonly tags: readonly string[];
  readonly diffIds: readonly string[];
  readonly architecture: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Inspect's Config; without it, the labels alone. */
  readonly config?: object;
  /** Without it, the time that makeImage writes. */
  readonly created?: string;
  /** References by digest. */
  readonly pinned?: readonly string[];
}

/** A registry that the fake pushes to and pulls from. */
export interface FakeRegistry {
  /** What the next pushes and pulls fail with, one each. */
  readonly failures: readonly string[];
  /** The digest that a push gives. */
  readonly digest: string;
  /** References that were pushed. */
  readonly pushed: readonly string[];
  /** Images that can be pulled, by reference. */
  readonly images: Readonly<Record<string, FakeImage>>;
  /** Manifests, by reference with digest. */
  readonly manifests: Readonly<Record<string, string>>;
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
  /** Names and digests of the files in the tarballs that were loaded. */
  readonly loadedFiles: readonly (readonly [string, string])[];
  /** Folder with the OCI layout that a build gives. */
  readonly buildLayout?: string;
  /** Tarball that `docker save` gives. */
  readonly saved?: string;
  /** Lines of rawjson progress that a build prints. */
  readonly progress: readonly string[];
  readonly registry: FakeRegistry;
  readonly fail?:
    | 'none'
    | 'build'
    | 'load'
    | 'unpack'
    | 'info'
    | 'silent-load'
    | 'buildx'
    | 'hang-build'
    | 'hang-info'
    | 'lost-layers'
    // It can't reach this machine's loopback interface.
    | 'far-away'
    // References by digest can't be removed.
    | 'keeps-references';
}

export const emptyState: FakeState = {
  store: 'classic',
  driver: 'docker-container',
  osType: 'linux',
  architecture: 'x86_64',
  images: [],
  calls: [],
  loadedFiles: [],
  progress: [],
  registry: { failures: [], digest: '', pushed: [], images: {}, manifests: {} },
};

export function readState(file: string): FakeState {
  // The file is written by writeState alone.
  const state: FakeState = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : emptyState;
  return state;
}

export function writeState(file: string, state: FakeState): void {
  // Commands run side by side: nobody may read half a file.
  const written = `${file}.${String(process.pid)}`;
  writeFileSync(written, JSON.stringify(state));
  renameSync(written, file);
}

/** Changes the state as it is now, while no other command does. */
export function updateState(file: string, change: (state: FakeState) => FakeState): FakeState {
  const lock = `${file}.lock`;
  while (!tryLock(lock)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  try {
    const state = change(readState(file));
    writeState(file, state);
    return state;
  } finally {
    rmdirSync(lock);
  }
}

function tryLock(lock: string): boolean {
  try {
    mkdirSync(lock);
    return true;
  } catch (error) {
    // Where the folder has gone, the scenario has ended.
    if (!existsSync(dirname(lock))) throw error;
    return false;
  }
}
