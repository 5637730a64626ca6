import { asError, HandoverError } from '../base/errors.ts';
import { type DockerCli, lastLine, outputOf } from './cli.ts';

// An engine on this machine asks at once; one that is elsewhere may wait for its own loopback interface to answer.
const reachMs = 10_000;

/** The registry that an image is pulled from, as far as the one who pulls wants to know how it goes. */
export interface WatchedRegistry {
  /** Settles when somebody has asked for the image. */
  readonly reached: Promise<unknown>;
  /** Settles with what went wrong when the image's bytes couldn't be had. */
  readonly failed: Promise<unknown>;
}

/**
 * Has the engine pull an image by its digest from a registry that is watched.
 * @throws HandoverError `load-failed` when the engine can't, or doesn't ask within ten seconds; what `failed` settles with
 */
export async function pullImage(
  cli: DockerCli,
  reference: string,
  { reached, failed }: WatchedRegistry,
): Promise<void> {
  const running = await cli.start(['pull', '--quiet', reference]);
  running.stdin.end();
  const timer = setTimeout(() => {
    running.kill();
  }, reachMs);
  void reached.then(() => {
    clearTimeout(timer);
  });
  let failure: unknown;
  void failed.then((error) => {
    failure = error;
    running.kill();
  });
  const output = await outputOf(running);
  clearTimeout(timer);
  if (failure !== undefined) throw asError(failure);
  if (output.exitCode === 0) return;
  throw new HandoverError(
    'load-failed',
    `The engine can't fetch layers from this step: ${lastLine(output) || 'it did not ask'}.`,
    'Set `overlap: false`.',
  );
}
