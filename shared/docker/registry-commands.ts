import { messageOf, RegistryFailure } from '../base/errors.ts';
import { retry } from '../http/retry.ts';
import { formatDuration } from '../base/text.ts';
import { type DockerCli, lastLine, outputOf } from './cli.ts';
import { type TimeLimit, timeLimit } from '../base/deadline.ts';
import { parsePush } from './output.ts';
import { type Digest, digestOf } from '../image/digest.ts';
import { isAttestation, isIndex, isIndexDocument, parseIndex, parseManifest } from '../image/manifest.ts';
import { formatPlatform, type Platform, samePlatform } from '../image/platform.ts';
import { formatReference, type PinnedReference, type Reference } from '../image/reference.ts';

const registryAttempts = 3;
/** Pause between two attempts, in ms. */
const pauseMs = 10_000;
/** How long one push or pull may take, in ms. */
const registryLimitMs = 25 * 60_000;

/** Limits the time that a command works on a registry. */
export const registryLimit = (): TimeLimit => timeLimit(registryLimitMs);

/** Why the limit ended a command; undefined if it didn't. */
export function exceeded({ signal }: TimeLimit): string | undefined {
  return signal.aborted ? `it took longer than ${formatDuration(registryLimitMs)}` : undefined;
}

/** Docker's commands for registries. Each throws a RegistryFailure after its last attempt. */
export type RegistryCommands = Readonly<ReturnType<typeof registryCommands>>;

export function registryCommands(
  cli: DockerCli,
  { warning, signal }: { readonly warning: (message: string) => void; readonly signal: AbortSignal },
) {
  /**
   * Runs other registry work until it succeeds, with at most three attempts and a warning before each retry.
   * @param failed the error of the first attempt, if that was made before
   * @throws RegistryFailure of the last attempt, or of one that would fail again in the same way
   */
  const attempt = <T>(work: () => Promise<T>, failed?: RegistryFailure): Promise<T> =>
    retry((count) => (count === 1 && failed !== undefined ? Promise.reject(failed) : work()), {
      attempts: registryAttempts,
      delayMs: () => pauseMs,
      isRetryable: (error) => error instanceof RegistryFailure && !error.permanent,
      onRetry: (error, count) => {
        const next = `${String(count + 1)} of ${String(registryAttempts)} in ${formatDuration(pauseMs)}`;
        warning(`${messageOf(error)}. Attempt ${next}.`);
      },
      signal,
    });
  return {
    attempt,
    /** Pulls into the engine, for the engine's platform. */
    pull: async (reference: Reference): Promise<void> => {
      await attempt(() => run(cli, 'The pull', ['pull', '--quiet', formatReference(reference)]));
    },
    /** Pushes a tag of the engine, and returns its digest in the registry. */
    push: (reference: string) =>
      attempt(async () => {
        const digest = parsePush(await run(cli, 'The push', ['push', reference]));
        if (digest === undefined) throw new RegistryFailure('The push', [reference], 'docker push printed no digest');
        return digest;
      }),
    /** Returns the config digest of a platform's image, verified by all digests that lead to it. */
    configDigest: (reference: PinnedReference, platform: Platform) =>
      attempt(() => configDigest(cli, reference, platform)),
  };
}

/** Returns what a command prints. The reference is its last argument. */
async function run(cli: DockerCli, work: string, args: readonly string[]): Promise<string> {
  const limit = registryLimit();
  const running = await cli.start(args, limit);
  limit.start();
  const output = await outputOf(running);
  limit.stop();
  if (output.exitCode === 0) return output.stdout;
  throw new RegistryFailure(work, args.slice(-1), exceeded(limit) ?? lastLine(output));
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
  // The digest proves that decoding to text lost no byte.
  const bytes = Buffer.from(await run(cli, 'Reading', ['buildx', 'imagetools', 'inspect', '--raw', name]));
  if (digestOf(bytes) === reference.digest) return bytes;
  throw new RegistryFailure('Reading', [name], 'the received manifest has another digest');
}
