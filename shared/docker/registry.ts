import { text } from 'node:stream/consumers';
import { HandoverError, messageOf } from '../errors.ts';
import { quoteForeign } from '../text.ts';
import { retry, type RetryOptions } from '../retry.ts';
import { type DockerCli, lastLine } from './cli.ts';

/** What the stories need of a container registry. */
export interface Registry {
  /** Pulls the engine's own platform of an image. Throws `registry-failed`. */
  pull(reference: string): Promise<void>;
}

/** @param warn told of each pull that is tried again */
export function dockerRegistry(cli: DockerCli, warn: (message: string) => void, signal: AbortSignal): Registry {
  const again: RetryOptions = {
    attempts: 3,
    delayMs: () => 10_000,
    isRetryable: (error) => error instanceof HandoverError && !isFinal(error.message),
    onRetry: (error) => {
      warn(`${messageOf(error)}; trying again in 10 s.`);
    },
    signal,
  };
  return { pull: (reference) => retry(() => pull(cli, reference), again) };
}

async function pull(cli: DockerCli, reference: string): Promise<void> {
  const running = await cli.start(['pull', '--quiet', reference]);
  running.stdin.end();
  const [stdout, stderr, exitCode] = await Promise.all([text(running.stdout), text(running.stderr), running.exit]);
  if (exitCode === 0) return;
  throw new HandoverError(
    'registry-failed',
    `docker pull ${quoteForeign(reference)} failed with exit code ${String(exitCode)}: ${lastLine({ stdout, stderr })}`,
    'Check that the image is there, and log in to its registry before this step if it is private (docker/login-action).',
  );
}

// What registries and engines say of an image that isn't there, or that isn't ours to see.
function isFinal(message: string): boolean {
  return /manifest unknown|not found|denied|unauthorized|no basic auth|no matching manifest|invalid reference/i.test(
    message,
  );
}
