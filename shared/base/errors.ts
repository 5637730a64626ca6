import { isObject, stringOr } from './json.ts';
import { quoteForeign } from './text.ts';

/** All error codes. Each has a scenario that produces it, and a heading in TROUBLESHOOTING.md. @internal */
export const errorCodes = [
  'invalid-input',
  'docker-unavailable',
  'cluster-not-found',
  'unsupported-host',
  'builder-unsupported',
  'build-failed',
  'cache-missed',
  'image-not-found',
  'tarball-invalid',
  'not-enough-space',
  'artifact-name-taken',
  'artifact-not-found',
  'artifact-expired',
  'artifact-corrupt',
  'transfer-failed',
  'load-failed',
  'image-missing',
  'image-mismatch',
  'platform-mismatch',
  'revision-mismatch',
  'registry-failed',
  'run-not-found',
  'timed-out',
  'cancelled',
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** The error that this project throws. It states what happened, with the value found, and the next step. */
export class HandoverError extends Error {
  override readonly name = 'HandoverError';
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.hint = hint;
  }
}

/** Returns the error for an input. */
export function invalidInput(message: string, hint = 'Correct it under `with:`.', cause?: unknown): HandoverError {
  return new HandoverError('invalid-input', message, hint, cause);
}

/** Returns the error for an artifact that can't have been written by export-image. */
export function corruptArtifact(message: string, cause?: unknown): HandoverError {
  return new HandoverError('artifact-corrupt', message, 'Run the job that exports the image again.', cause);
}

const madeAgain = 'The tarball was edited: make it again with docker save.';

/** Returns the error for an unusable tarball or layout. */
export function invalidTarball(message: string, hint = madeAgain, cause?: unknown): HandoverError {
  return new HandoverError('tarball-invalid', message, hint, cause);
}

/** Returns whether an error means that an artifact has no readable content. A failure to reach the artifact doesn't mean that. */
export function isUnreadable(error: unknown): boolean {
  return error instanceof HandoverError && unreadable.includes(error.code);
}

const unreadable: readonly ErrorCode[] = ['artifact-corrupt', 'artifact-expired', 'artifact-not-found'];

/** Returns the message of any thrown value. */
export function messageOf(error: unknown): string {
  if (!Error.isError(error)) return String(error);
  // Node's error for a host with several unreachable addresses has no message.
  return error.message || (systemCodeOf(error) ?? error.name);
}

/** Returns the system error code (`ENOENT`, `ECONNRESET`, …) of any thrown value, or undefined. */
export function systemCodeOf(error: unknown): string | undefined {
  // An Error from another realm is not an instance of this realm's Error (ECMA-262, "Realms").
  return isObject(error) ? stringOr(error['code'], undefined) : undefined;
}

/** Returns the result of `look`, such as reading a file that may disappear, or `otherwise` if it throws. */
export function attempt<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch {
    return otherwise;
  }
}

/** Returns the result of `work`. If it throws, throws the error that `translate` returns. */
export function translated<T>(work: () => T, translate: (error: unknown) => Error): T {
  try {
    return work();
  } catch (error) {
    throw translate(error);
  }
}

/** Returns a caught value as an error. Some libraries throw other values. */
export function asError(error: unknown): Error {
  return Error.isError(error) ? error : new Error(String(error));
}

/** The hint for every limitation of the default builder. */
export const setupBuildxHint = 'Add this step before it: `- uses: docker/setup-buildx-action@v4`.';

/** A build that failed while reading a cache. It may succeed without that cache. */
export class CacheFailure extends HandoverError {
  readonly why: string;

  constructor(why: string) {
    const quoted = quoteForeign(why, 500);
    super(
      'build-failed',
      `The build failed while it read layers of a cache or a base image: ${quoted}`,
      'Check whether the base images and the caches in `cache-from` can be read.',
    );
    this.why = quoted;
  }
}

/** Facts about a registry failure in addition to its message. */
interface RegistrySeen {
  readonly status?: number | undefined;
  /** The connection error, such as `ECONNREFUSED`. */
  readonly systemCode?: string | undefined;
  /** The part of the message with the cause; undefined for the whole message. */
  readonly why?: string | undefined;
}

/** A push or a pull that failed. */
export class RegistryFailure extends HandoverError {
  /** Whether the registry lacks a blob that it reported as present. */
  readonly isBlobLost: boolean;
  /** Whether another attempt would fail in the same way: a wrong login, a missing image. */
  readonly permanent: boolean;
  /** The client's full message. */
  readonly said: string;

  /** @param work such as `The pull` */
  constructor(work: string, references: readonly string[], said: string, seen: RegistrySeen = {}) {
    const words = `${withoutNames(seen.why ?? said, references)} ${seen.systemCode ?? ''}`;
    const status = seen.status ?? statusIn(words);
    const cause = registryCauses.find((one) => one.words.test(words) || one.statuses?.includes(status));
    const { isBlobLost = false, permanent, hint } = cause ?? otherCause;
    super(
      'registry-failed',
      `${work} of ${references.join(', ')} failed: ${quoteForeign(said, 700) || 'no message'}`,
      hint,
    );
    this.isBlobLost = isBlobLost;
    this.permanent = permanent;
    this.said = said;
  }
}

// Removes repository names from a message, because a repository may be named "denied". Registries omit their own name.
function withoutNames(said: string, references: readonly string[]): string {
  const paths = references.map((name) => name.replace(/^[^/]*\//, '').replace(/[:@].*$/, ''));
  const names = [...references, ...paths].filter((name) => name !== '');
  return names.reduce((text, name) => text.replaceAll(name, ''), said).replace(/https?:\/\/[^\s"]+/g, '');
}

/** A cause of registry failures, in the messages of docker's commands and of this project's client. */
interface RegistryCause extends Pick<RegistryFailure, 'permanent' | 'hint'> {
  readonly words: RegExp;
  readonly statuses?: readonly number[];
  readonly isBlobLost?: true;
}

// Sources of the words: distribution-spec, "Error Codes"; docker's, containerd's and BuildKit's messages; Node's and OpenSSL's codes; what Amazon ECR,
// Azure, Harbor and Quay return for immutable tags and quotas. The first matching row counts.
const registryCauses: readonly RegistryCause[] = [
  {
    words: /\btoo ?many ?requests\b|\brate limit\b/i,
    statuses: [429],
    permanent: false,
    hint: 'The registry has a rate limit: run the job again later, or use an account with a higher limit.',
  },
  {
    words: /immutab|cannot be overwritten|tag \S* ?already ?exists|operation is disallowed/i,
    statuses: [409],
    permanent: true,
    hint: 'This tag was set before and can’t be moved, or is locked: give a tag of its own to each commit, such as `sha-<commit>`, or allow it in the registry.',
  },
  {
    words: /\bquota\b|exceed the configured upper limit|insufficient storage|no space left/i,
    statuses: [507],
    permanent: true,
    hint: 'The registry has no room left for this repository: remove images there, or raise its quota.',
  },
  {
    words: /\brefused by another host\b/,
    permanent: false,
    hint: 'The registry sent this request to another host, which gets no login and refused it: run the step again, and look at the storage behind the registry.',
  },
  {
    words:
      /\b(?:unauthorized|forbidden|denied|no basic auth credentials|authorization failed|authentication required|insufficient_scope)\b/i,
    statuses: [401, 403],
    permanent: true,
    hint:
      'Log in before this step (`docker/login-action`); ghcr.io also needs `permissions: packages: write` to push and ' +
      '`packages: read` to pull.',
  },
  {
    isBlobLost: true,
    words: /\bblob[_ ]unknown\b|\bunknown blob\b|\bblob upload[_ ]unknown\b|\bBLOB_UPLOAD_/i,
    permanent: false,
    hint: 'The registry has lost a part of the image, or of its upload: run the step again, and look at its storage, its garbage collection and the load balancer before it.',
  },
  {
    words: /x509|\bcertificate|\bCERT_|SELF_SIGNED|UNABLE_TO_|ERR_TLS_/i,
    permanent: true,
    hint: 'Trust the registry’s certificate authority: with publish-image in `registry-ca`, with docker in /etc/docker/certs.d/<registry>/ca.crt.',
  },
  {
    words:
      /connection (?:refused|reset)|no such host|i\/o timeout|broken pipe|network is unreachable|no route to host|\bEOF\b|server gave HTTP response|\bE(?:CONN|AI_|PIPE|NOTFOUND|TIMEDOUT|HOST|NET)|\bUND_ERR_|\bHPE_|ERR_SSL_|\bEPROTO\b|took longer than/i,
    statuses: [408],
    permanent: false,
    hint: 'There is no usable registry at that address: check the registry’s host and port, that it is running, and that this runner can reach it (a service of the job, a VPN, `HTTPS_PROXY`).',
  },
  {
    words: /too large\b|\bSIZE_INVALID\b/i,
    statuses: [413],
    permanent: true,
    hint: 'Something limits the size of a request: raise it in the registry or the proxy before it (nginx: `client_max_body_size 0`), or split the largest layer.',
  },
  {
    words: /unsupported media ?type|media type .*(?:not|un)|\bMANIFEST_INVALID\b|\bmanifest invalid\b/i,
    statuses: [415],
    permanent: true,
    hint: 'The registry doesn’t take images in this format (OCI or Docker manifests, zstd layers): see its documentation, or export the image with `compression: gzip`.',
  },
  {
    words: /stopped after \d+ redirects/i,
    statuses: [301, 302, 303, 307, 308],
    permanent: true,
    hint: 'The registry redirects this request to another address: use the registry’s own address.',
  },
  {
    words: /\bno matching manifest\b/i,
    permanent: true,
    hint: 'The image there isn’t made for this platform: push it for this one too (`push-platforms`), or use a runner of its platform.',
  },
  {
    words: /\bread back\b/i,
    permanent: false,
    hint: 'The registry took the manifest but doesn’t return it: run the step again, and look at its storage or replication.',
  },
  {
    words: /\bmanifest[_ ]unknown\b|\bname[_ ]unknown\b|\bnot[_ ]found\b|does not exist|not known to registry/i,
    statuses: [404],
    permanent: true,
    hint: 'Check the spelling of registry, repository and tag; some registries, such as Amazon ECR, want the repository to be created before the first push.',
  },
  {
    words: /\bUNSUPPORTED\b|\bread[- ]only\b|method not allowed/i,
    statuses: [405, 501],
    permanent: true,
    hint: 'The registry takes no pushes at this address: it may be read-only for now, or a mirror of another registry.',
  },
  {
    words: /\binvalid reference\b|\b(?:name|tag|digest)[_ ]invalid\b|\bbad request\b/i,
    statuses: [400, 422],
    permanent: true,
    hint: 'The registry doesn’t accept the name or the content: see its words in the message, and its rules for repositories and tags.',
  },
  {
    words: /\bserver error\b|\bbad gateway\b|\bservice unavailable\b|\bgateway time-?out\b/i,
    statuses: [500, 502, 503, 504],
    permanent: false,
    hint: 'The registry itself fails: check its status page or its log, and run the job again.',
  },
];

const otherCause: Omit<RegistryCause, 'words' | 'statuses'> = {
  permanent: false,
  hint: 'See the registry’s message. Its log may show more.',
};

// Returns NaN for a message without a status. Messages of docker, containerd and BuildKit: "unexpected status from PUT request to <url>: 400 Bad Request",
// "received unexpected HTTP status: 500".
function statusIn(words: string): number {
  return Number(/(?:\bHTTP(?: status)?:? |\bstatus(?: code)?:? |\brequest to\s*:?\s*)([345]\d\d)\b/i.exec(words)?.[1]);
}
