import { type Digest, digestOf } from '../image/digest.ts';
import { isAttestation, isIndex, parseIndex, parseManifest } from '../image/manifest.ts';
import { formatPlatform, type Platform, samePlatform } from '../image/platform.ts';
import { formatReference, type PinnedReference, type Reference } from '../image/reference.ts';
import { isObject, parseJson } from '../json.ts';
import { type AttemptOptions, attemptRegistry } from '../registry-attempts.ts';
import { RegistryFailure } from '../registry-failure.ts';
import { type CliOutput, type DockerCli, lastLine, outputOf } from './cli.ts';
import { parsePush } from './output.ts';
import { registryLimit } from './registry-limit.ts';

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
  const content = parseJson(manifest);
  // An index has `manifests`, a manifest has `config` (OCI image-spec, image-index.md and manifest.md).
  if (!isObject(content) || content['manifests'] === undefined) return parseManifest(manifest, name).config.digest;
  const found = parseIndex(manifest, name).find(
    (entry) => !isAttestation(entry) && entry.platform !== undefined && samePlatform(entry.platform, platform),
  );
  if (found === undefined || isIndex(found)) {
    throw new RegistryFailure('Reading', [name], `no matching manifest for ${formatPlatform(platform)}`);
  }
  return parseManifest(await rawManifest(cli, { ...reference, digest: found.digest }), name).config.digest;
}

async function rawManifest(cli: DockerCli, reference: PinnedReference): Promise<string> {
  const name = formatReference(reference);
  const output = await run(cli, 'Reading', ['buildx', 'imagetools', 'inspect', '--raw', name]);
  if (digestOf(output.stdout) === reference.digest) return output.stdout;
  throw new RegistryFailure('Reading', [name], 'the manifest that came has another digest');
}
