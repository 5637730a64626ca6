export interface FakeImage {
  readonly imageId: string;
  readonly tags: readonly string[];
  readonly diffIds: readonly string[];
  readonly architecture: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Inspect's Config. Default: only the labels. */
  readonly config?: object;
  /** Default: the time that makeImage writes. */
  readonly created?: string;
  /** References by digest. */
  readonly pinned?: readonly string[];
}

/** A registry for the fake's pushes and pulls. */
export interface FakeRegistry {
  /** Errors for the next pushes and pulls, one for each. */
  readonly failures: readonly string[];
  /** Digest of every push. */
  readonly digest: string;
  /** Pushed references. */
  readonly pushed: readonly string[];
  /** Images that can be pulled, keyed by reference. */
  readonly images: Readonly<Record<string, FakeImage>>;
  /** Manifests, keyed by reference with digest. */
  readonly manifests: Readonly<Record<string, string>>;
}

/** Content and behaviour of the fake engine. */
export interface FakeState {
  readonly store: 'classic' | 'containerd';
  readonly driver: string;
  readonly osType: string;
  /** Architecture as in `docker info`. */
  readonly architecture: string;
  readonly images: readonly FakeImage[];
  /**
   * All calls in order. A command is a list of its arguments, which starts with `podman` for podman. An API request is its method,
   * its path without the version, and its query: `['POST', '/images/load', 'quiet=1']`.
   */
  readonly calls: readonly (readonly string[])[];
  /** Names and digests of the files in loaded tarballs. */
  readonly loadedFiles: readonly (readonly [string, string])[];
  /** Folder with the OCI layout that a build exports. */
  readonly buildLayout?: string;
  /** A file that a build waits for after it has written its layers. */
  readonly buildWaitsFor?: string;
  /** Tarball that `docker save` writes. */
  readonly saved?: string;
  /** rawjson progress lines that a build prints. */
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

// Maps API requests to docker's commands.
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

/** Returns the verb of a command or API request: `load`, `pull`, `tag`, `rm`, `inspect`, or '' for other requests. */
export function verbOf(call: readonly string[]): string {
  const [first = '', second = ''] = call;
  if (!/^[A-Z]+$/.test(first)) return first === 'image' ? second : first;
  return requests.find(([form]) => form.test(call.join(' ')))?.[1] ?? '';
}

/** Returns the pulled references in order, of commands and API requests. */
export function pulledReferences({ calls }: FakeState): readonly string[] {
  const value = (call: readonly string[], name: string): string =>
    call.find((part) => part.startsWith(`${name}=`))?.slice(name.length + 1) ?? '';
  return calls
    .filter((call) => verbOf(call) === 'pull')
    .map((call) => (call[0] === 'POST' ? `${value(call, 'fromImage')}@${value(call, 'tag')}` : (call.at(-1) ?? '')));
}
