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

/** What the fake engine holds and how it behaves. */
export interface FakeState {
  readonly store: 'classic' | 'containerd';
  readonly driver: string;
  readonly osType: string;
  /** As `docker info` names it. */
  readonly architecture: string;
  readonly images: readonly FakeImage[];
  /**
   * What was asked so far, in order. A command is its arguments, after `podman` for one of podman's; a request of the API is its
   * method, its path without a version, and its query: `['POST', '/images/load', 'quiet=1']`.
   */
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
    // There is no engine behind the client. Known from the start: nothing listens on its socket.
    | 'info'
    | 'silent-load'
    | 'buildx'
    // buildx can't write to its own folder.
    | 'buildx-folder'
    // buildx waits for its remote builder in vain.
    | 'builder'
    // The command `docker` is podman's (the package podman-docker). Known from the start: there is no engine's socket.
    | 'podman-docker'
    | 'hang-build'
    | 'hang-info'
    | 'lost-layers'
    // Docker's own command goes to another engine, which has no image.
    | 'other-engine'
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

// What a request of the API is as a command of docker's.
const requests: readonly (readonly [RegExp, string])[] = [
  [/^GET \/info$/, 'info'],
  [/^GET \/images\/json /, 'ls'],
  [/^GET \/images\/.+\/json/, 'inspect'],
  [/^POST \/images\/.+\/tag /, 'tag'],
  [/^DELETE \/images\//, 'rm'],
  [/^POST \/images\/load /, 'load'],
  [/^POST \/images\/create .*fromImage=/, 'pull'],
  [/^POST \/images\/create .*fromSrc=/, 'import'],
];

/** The verb of a call, whichever way it was asked: `load`, `pull`, `tag`, `rm`, `inspect`; '' for a request that has none. */
export function verbOf(call: readonly string[]): string {
  const [first = '', second = ''] = call;
  if (!/^[A-Z]+$/.test(first)) return first === 'image' ? second : first;
  return requests.find(([form]) => form.test(call.join(' ')))?.[1] ?? '';
}

/** What was pulled, in order, whichever way. */
export function pulledReferences({ calls }: FakeState): readonly string[] {
  const value = (call: readonly string[], name: string): string =>
    call.find((part) => part.startsWith(`${name}=`))?.slice(name.length + 1) ?? '';
  return calls
    .filter((call) => verbOf(call) === 'pull')
    .map((call) => (call[0] === 'POST' ? `${value(call, 'fromImage')}@${value(call, 'tag')}` : (call.at(-1) ?? '')));
}
