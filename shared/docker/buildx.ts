import { createInterface } from 'node:readline';
import { HandoverError } from '../errors.ts';
import { RegistryFailure } from '../registry-failure.ts';
import { setupBuildxHint } from '../setup-buildx-hint.ts';
import { BuildProgress, type BuildStep } from './build-progress.ts';
import { type DockerCli, lastLine } from './cli.ts';
import { registryLimit } from './registry-limit.ts';

export interface Builder {
  readonly name: string;
  readonly driver: string;
}

/** What a build came to. */
export interface BuildOutcome {
  /** The Dockerfile's steps. */
  readonly steps: readonly BuildStep[];
  /** Set when all went well but the push. */
  readonly pushFailure: RegistryFailure | undefined;
}

/** What the stories need of buildx. */
export interface Buildx {
  /** The named builder, or the current one. Throws `builder-unsupported` without buildx or without that builder. */
  builder(name: string | undefined): Promise<Builder>;
  /**
   * Runs `docker buildx build` with these arguments. Throws `build-failed`.
   * @param pushed the references that the build pushes
   */
  build(args: readonly string[], print: (line: string) => void, pushed?: readonly string[]): Promise<BuildOutcome>;
}

export function dockerBuildx(cli: DockerCli): Buildx {
  return {
    builder: async (name) => {
      const output = await cli.query(['buildx', 'inspect', ...(name === undefined ? [] : [name])]);
      const driver = /^Driver:\s+(\S+)/m.exec(output.stdout)?.[1];
      if (output.exitCode === 0 && driver !== undefined) {
        return { name: /^Name:\s+(\S+)/m.exec(output.stdout)?.[1] ?? name ?? 'default', driver };
      }
      const which = name === undefined ? 'the current builder' : `the builder "${name}"`;
      throw new HandoverError(
        'builder-unsupported',
        `docker buildx can't use ${which}: ${lastLine(output)}`,
        setupBuildxHint,
      );
    },
    build: (args, print, pushed = []) => build(cli, args, print, pushed),
  };
}

async function build(
  cli: DockerCli,
  args: readonly string[],
  print: (line: string) => void,
  pushed: readonly string[],
): Promise<BuildOutcome> {
  const running = await cli.start(['buildx', 'build', '--progress=rawjson', ...args]);
  running.stdin.end();
  running.stdout.resume();
  const progress = new BuildProgress(print);
  // The limit is the push's: a build may take its time.
  const limit = registryLimit(running);
  for await (const line of createInterface({ input: running.stderr })) {
    progress.line(line);
    if (pushed.length > 0 && progress.pushing) limit.start();
  }
  const exitCode = await running.exit;
  limit.stop();
  const steps = progress.steps();
  if (exitCode === 0) return { steps, pushFailure: undefined };
  const failure = limit.exceeded() ?? progress.failure();
  if (limit.exceeded() !== undefined || (pushed.length > 0 && progress.pushFailed)) {
    return { steps, pushFailure: new RegistryFailure('The push', pushed, failure) };
  }
  if (failure.includes('rawjson')) {
    throw new HandoverError('builder-unsupported', `This buildx is too old: ${failure}`, setupBuildxHint);
  }
  throw new HandoverError(
    'build-failed',
    `docker buildx build failed with exit code ${String(exitCode)}: ${failure}`,
    'The step that failed is in the log above, under "Build".',
  );
}
