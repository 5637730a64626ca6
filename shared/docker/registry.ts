import { messageOf, RegistryFailure } from '../base/errors.ts';
import { retry } from '../http/retry.ts';
import { formatDuration } from '../base/text.ts';
import { type CliOutput, type DockerCli, lastLine, outputOf, type RunningCli } from './cli.ts';
import { parsePush } from './output.ts';
import { type Digest, digestOf } from '../image/digest.ts';
import { isAttestation, isIndex, isIndexDocument, parseIndex, parseManifest } from '../image/manifest.ts';
import { formatPlatform, type Platform, samePlatform } from '../image/platform.ts';
import { formatReference, type PinnedReference, type Reference } from '../image/reference.ts';

/** How often registry work is tried in all. */
export const registryAttempts = 3;
/** How long one push or pull may take, in ms. */
export const registryLimitMs = 25 * 60_000;

export interface AttemptOptions {
  /** Pause between two attempts, in ms. */
  readonly pauseMs: number;
  readonly warning: (message: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Runs registry work until it succeeds, for three attempts at most, with a warning before each further one.
 * @param failed the first attempt, if it was made elsewhere
 * @throws RegistryFailure of the last attempt; at once when another would fail in the same way
 */
export function attemptRegistry<T>(
  work: () => Promise<T>,
  { pauseMs, warning, signal }: AttemptOptions,
  failed?: RegistryFailure,
): Promise<T> {
  return retry((attempt) => (attempt === 1 && failed !== undefined ? Promise.reject(failed) : work()), {
    attempts: registryAttempts,
    delayMs: () => pauseMs,
    isRetryable: (error) => error instanceof RegistryFailure && !error.permanent,
    onRetry: (error, attempt) => {
      const next = `${String(attempt + 1)} of ${String(registryAttempts)} in ${formatDuration(pauseMs)}`;
      warning(`${messageOf(error)}. Attempt ${next}.`);
    },
    signal,
  });
}

/** Ends a command whose work on a registry takes too long. */
export interface RegistryLimit {
  /** The work on the registry begins; told again, nothing changes. */
  start(): void;
  stop(): void;
  /** Why the command was ended, if it was. */
  exceeded(): string | undefined;
}

export function registryLimit(running: RunningCli): RegistryLimit {
  let timer: NodeJS.Timeout | undefined;
  let why: string | undefined;
  const end = (): void => {
    why = `it took longer than ${formatDuration(registryLimitMs)}`;
    running.kill();
  };
  return {
    start: () => void (timer ??= setTimeout(end, registryLimitMs)),
    stop: () => {
      clearTimeout(timer);
    },
    exceeded: () => why,
  };
}

/** What the stories need of a registry. Each throws a RegistryFailure when its attempts are used up. */
export interface Registry {
  /** Pulls into the engine, for its own platform. */
  pull(reference: Reference): Promise<void>;
  /** Pushes an image that has this tag in the engine; returns the digest it has in the registry. */
  push(reference: string): Promise<Digest>;
  /** The config digest of a platform's image behind a reference, proved by the digests on the way to it. */
  configDigest(reference: PinnedReference, platform: Platform): Promise<Digest>;
  /** Runs other work on a registry with the same attempts; `failed` is the first one, if it was made elsewhere. */
  attempt<T>(work: () => Promise<T>, failed?: RegistryFailure): Promise<T>;
}

export function dockerRegistry(cli: DockerCli, options: AttemptOptions): Registry {
  const attempt: Registry['attempt'] = (work, failed) => attemptRegistry(work, options, failed);
  return {
    attempt,
    pull: (reference) =>
      attempt(async () => {
        await run(cli, 'The pull', ['pull', '--quiet', formatReference(reference)]);
      }),
    push: (reference) =>
      attempt(async () => {
        const output = await run(cli, 'The push', ['push', reference]);
        const digest = parsePush(output.stdout);
        if (digest === undefined) throw new RegistryFailure('The push', [reference], 'it told no digest');
        return digest;
      }),
    configDigest: (reference, platform) => attempt(() => configDigest(cli, reference, platform)),
  };
}

// The reference comes last.
async function run(cli: DockerCli, work: string, args: readonly string[]): Promise<CliOutput> {
  const running = await cli.start(args);
  running.stdin.end();
  const limit = registryLimit(running);
  limit.start();
  const output = await outputOf(running);
  limit.stop();
  if (output.exitCode === 0) return output;
  throw new RegistryFailure(work, args.slice(-1), limit.exceeded() ?? lastLine(output));
}

async function configDigest(cli: DockerCli, reference: PinnedReference, platform: Platform): Promise<Digest> {
  const name = formatReference(reference);
  const manifest = await rawManifest(cli, reference);
  if (!isIndexDocument(manifest, name)) return parseManifest(manifest, name).config.digest;
  const found = parseIndex(manifest, name).find(
    (entry) => !isAttestation(entry) && entry.platform !== undefined && samePlatform(entry.platform, platform),
  );
  if (found === undefined || isIndex(found)) {
    throw new RegistryFailure('Reading', [name], `no matching manifest for ${formatPlatform(platform)}`);
  }
  return parseManifest(await rawManifest(cli, { ...reference, digest: found.digest }), name).config.digest;
}

async function rawManifest(cli: DockerCli, reference: PinnedReference): Promise<Buffer> {
  const name = formatReference(reference);
  const output = await run(cli, 'Reading', ['buildx', 'imagetools', 'inspect', '--raw', name]);
  // The digest proves that decoding to text lost no byte.
  const bytes = Buffer.from(output.stdout);
  if (digestOf(bytes) === reference.digest) return bytes;
  throw new RegistryFailure('Reading', [name], 'the manifest that came has another digest');
}
