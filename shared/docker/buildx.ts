import { createInterface } from 'node:readline';
import { CacheFailure, HandoverError, invalidInput, RegistryFailure, setupBuildxHint } from '../base/errors.ts';
import { isObject, parseJson, stringOr, stringsOf } from '../base/json.ts';
import { formatDuration, quoteForeign } from '../base/text.ts';
import { BuildProgress, type BuildStep } from './build-progress.ts';
import { causeLine, type DockerCli, lastLine, refusePodman } from './cli.ts';
import { timeLimit } from '../base/deadline.ts';
import { exceeded, registryLimit } from './registry-commands.ts';

export interface BuildOutcome {
  readonly steps: readonly BuildStep[];
  /** Set if only the push failed. */
  readonly pushFailure: RegistryFailure | undefined;
  /** A sentence for each unreachable cache. BuildKit has built without it. */
  readonly unreadCaches: readonly string[];
}

export interface BuildCommand {
  readonly name: 'build' | 'bake';
  readonly args: readonly string[];
  /** The folder that it runs in, where bake resolves paths from; undefined is this step's own. */
  readonly workdir?: string;
}

export interface BakeTarget {
  readonly name: string;
  /** The names of its image. */
  readonly tags: readonly string[];
  /** Its definition as JSON, without its names, platforms and outputs. */
  readonly definition: string;
  /** Its caches to write, as `cache-to` lines. */
  readonly cacheTo?: readonly string[] | undefined;
  /** Whether it is only built because another target is built on it (`contexts: target:…`). */
  readonly isLinked?: true;
}

export class Buildx {
  readonly #cli: DockerCli;
  readonly #stepMinutes: number;

  /** @param stepMinutes the step's time limit */
  constructor(cli: DockerCli, stepMinutes: number) {
    this.#cli = cli;
    this.#stepMinutes = stepMinutes;
  }

  /** Returns the named builder, or the current one. Throws `builder-unsupported` without buildx or that builder. */
  async builder(name: string | undefined): Promise<{ readonly name: string; readonly driver: string }> {
    const output = await this.#cli.query(['buildx', 'inspect', ...(name === undefined ? [] : [name])]);
    const driver = /^Driver:\s+(\S+)/m.exec(output.stdout)?.[1];
    if (output.exitCode === 0 && driver !== undefined) {
      return { name: /^Name:\s+(\S+)/m.exec(output.stdout)?.[1] ?? name ?? 'default', driver };
    }
    if (name !== undefined && /no builder .* found/.test(output.stderr)) throw await noSuchBuilder(this.#cli, name);
    const which = name === undefined ? 'the current builder' : `the builder "${quoteForeign(name)}"`;
    await refusePodman(this.#cli);
    const cause = causeLine(output);
    const hint = folderHint(cause) ?? setupBuildxHint;
    throw new HandoverError('builder-unsupported', `docker buildx can't use ${which}: ${cause}`, hint);
  }

  /** Runs a build, which pushes `pushed`. Throws `build-failed`, or a CacheFailure if it may succeed without `cache-from`. */
  async build(
    command: BuildCommand,
    print: (line: string) => void,
    pushed: readonly string[] = [],
  ): Promise<BuildOutcome> {
    const progress = new BuildProgress(print);
    // The limit is for the push. The build itself has none.
    const limit = registryLimit();
    const exitCode = await this.#run(command, limit.signal, (line) => {
      progress.line(line);
      if (pushed.length > 0 && progress.pushing) limit.start();
    });
    limit.stop();
    const outcome = { steps: progress.steps(), unreadCaches: progress.unreadCaches };
    if (exitCode === 0) return { ...outcome, pushFailure: undefined };
    const failure = exceeded(limit) ?? progress.failure();
    if (limit.signal.aborted || (pushed.length > 0 && progress.pushFailed))
      return { ...outcome, pushFailure: new RegistryFailure('The push', pushed, failure) };
    throw buildFailure(progress, failure, `docker buildx ${command.name} failed with exit code ${String(exitCode)}`);
  }

  /** Returns a bake's targets, and those with caches that they are built on. Throws `invalid-input` if `bake --print` lacks them. */
  async targets(
    { name: command, args, workdir }: BuildCommand,
    names: readonly string[],
  ): Promise<readonly BakeTarget[]> {
    const output = await this.#cli.query(['buildx', command, ...args], workdir);
    const found = output.exitCode === 0 ? parseBakeFile(output.stdout, names) : undefined;
    if (found !== undefined) return found;
    throw invalidInput(
      `docker buildx bake can't resolve the targets ${names.map((name) => quoteForeign(name)).join(', ')}: ${lastLine(output)}`,
      'Run `docker buildx bake --print` in the workspace. Check the repository out before this step.',
    );
  }

  /** Runs a build that only writes a cache, until the signal is aborted. Returns why it failed; undefined if the cache was written. */
  async writeCache(command: BuildCommand, signal: AbortSignal): Promise<string | undefined> {
    const progress = new BuildProgress(() => undefined);
    // A layer is written in one step: 5 minutes without progress are enough for 3 GB at BuildKit's rate. Without a limit, BuildKit repeats
    // requests with status 500 for a quarter of an hour.
    const idleMs = Math.min(5, this.#stepMinutes / 4) * 60_000;
    const idle = timeLimit(idleMs);
    idle.start();
    const exitCode = await this.#run(command, AbortSignal.any([signal, idle.signal]), (line) => {
      progress.line(line);
      idle.restart();
    });
    idle.stop();
    if (idle.signal.aborted) return `it made no progress for ${formatDuration(idleMs)}`;
    return exitCode === 0 ? undefined : progress.cause();
  }

  /** Runs buildx to its end, or until the signal is aborted. Calls `onLine` with each line of its progress. Returns the exit code. */
  async #run(
    { name, args, workdir }: BuildCommand,
    signal: AbortSignal,
    onLine: (line: string) => void,
  ): Promise<number> {
    const running = await this.#cli.start(['buildx', name, '--progress=rawjson', ...args], { workdir, signal });
    running.stdin.end();
    running.stdout.resume();
    for await (const line of createInterface({ input: running.stderr })) onLine(line);
    return running.exit;
  }
}

function buildFailure(progress: BuildProgress, failure: string, what: string): HandoverError {
  if (progress.cacheBroke) return new CacheFailure(progress.cause());
  if (failure.includes('rawjson'))
    return new HandoverError('builder-unsupported', `This buildx is too old: ${failure}`, setupBuildxHint);
  const { builderFailure } = progress;
  if (builderFailure !== undefined) {
    return new HandoverError(
      'builder-unsupported',
      `docker buildx can't reach the builder: ${builderFailure}`,
      'Check that the builder runs, and that this job can reach it: docker buildx inspect --bootstrap.',
    );
  }
  const noBuild = folderHint(failure) ?? 'Nothing was built. Correct the inputs or the build’s files.';
  const hint = progress.began ? 'The log above shows the failed step.' : noBuild;
  return new HandoverError('build-failed', `${what}: ${failure}`, hint);
}

/**
 * Reads the output of `docker buildx bake --print`.
 * @param names targets and groups. A group means its targets, even if one of them has the group's name.
 * @returns the targets in the order of the names, each once, then those with caches that they are built on. Undefined if one is missing.
 * @internal
 */
export function parseBakeFile(json: string, names: readonly string[]): readonly BakeTarget[] | undefined {
  const file = parseJson(json);
  const [groups, targets] = ['group', 'target'].map((kind) => (isObject(file) ? file[kind] : undefined));
  if (!isObject(targets)) return undefined;
  const found = new Map<string, BakeTarget>();
  const add = (name: string, within: readonly string[]): boolean => {
    const group = isObject(groups) && !within.includes(name) ? groups[name] : undefined;
    if (isObject(group)) return stringsOf(group['targets']).every((one) => add(one, [...within, name]));
    const target = targets[name];
    if (!isObject(target)) return false;
    const built = Object.entries(target).filter(([key]) => !['tags', 'output', 'platforms'].includes(key));
    const definition = JSON.stringify(Object.fromEntries(built));
    found.set(name, { name, tags: stringsOf(target['tags']), definition, cacheTo: cachesOf(target['cache-to']) });
    return true;
  };
  if (!names.every((name) => add(name, [])) || found.size === 0) return undefined;
  const linked = Object.entries(targets).flatMap(([name, target]): readonly BakeTarget[] => {
    const cacheTo = isObject(target) && !found.has(name) ? cachesOf(target['cache-to']) : undefined;
    return cacheTo === undefined ? [] : [{ name, tags: [], definition: '', cacheTo, isLinked: true }];
  });
  return [...found.values(), ...linked];
}

// A list of lines before buildx 0.20, of objects since then.
function cachesOf(value: unknown): readonly string[] | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const items: readonly unknown[] = value;
  return items.map((item) => {
    if (!isObject(item)) return String(item);
    return Object.entries(item)
      .map(([key, field]) => `${key}=${String(field)}`)
      .map((field) => (/[",]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field))
      .join(',');
  });
}

async function noSuchBuilder(cli: DockerCli, name: string): Promise<HandoverError> {
  // One object per line. Older versions of buildx don't know the format.
  const { stdout } = await cli.query(['buildx', 'ls', '--format', 'json']);
  const builders = stdout.split('\n').map((line) => parseJson(line));
  const names = builders.map((builder) => (isObject(builder) ? stringOr(builder['Name'], '') : '')).filter(Boolean);
  const there = names.length === 0 ? '' : ` There ${names.length === 1 ? 'is' : 'are'}: ${names.join(', ')}.`;
  return new HandoverError(
    'builder-unsupported',
    `There is no builder "${quoteForeign(name)}" here.${there}`,
    'Correct the input `builder`, or remove it to use the current one. docker/setup-buildx-action returns the name of its ' +
      'builder in its output `name`.',
  );
}

// buildx writes to its own folder (buildx, util/confutil: ~/.docker/buildx).
function folderHint(cause: string): string | undefined {
  return /\b(?:mkdir|open|openat|chmod|rename) [^:]+: (?:read-only file system|permission denied)/.test(cause)
    ? 'Set the variable `BUILDX_CONFIG` to a folder that this job may write to, such as `BUILDX_CONFIG: ${{ runner.temp }}/buildx` in the ' +
        '`env:` of this step and of the steps that create the builder. By default, buildx writes to ~/.docker/buildx.'
    : undefined;
}
