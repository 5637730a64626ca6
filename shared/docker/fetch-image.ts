import { asError, HandoverError } from '../base/errors.ts';
import {
  type LoopbackRegistry,
  loopbackRegistry,
  type OfferedImage,
} from '../../load-image/overlap/loopback-registry.ts';
import { type CliOutput, type DockerCli, lastLine, outputOf } from './cli.ts';
import { saysNoSuchImage } from './output.ts';

// An engine on this machine asks at once; one that is elsewhere may wait for its own loopback interface to answer.
const reachMs = 10_000;

/** An image that the engine has fetched. It has but a reference of ours, which goes when this is disposed of. */
export type FetchedImage = AsyncDisposable;

/**
 * Lets the engine fetch an image from this process with `docker pull`: it takes what it lacks, several layers at a time,
 * and unpacks one while others come.
 * @param warn told if our reference could not be removed
 * @throws HandoverError `load-failed` when the engine can't; what the blobs' chunks throw
 */
export async function fetchImage(
  cli: DockerCli,
  image: OfferedImage,
  warn: (text: string) => void,
): Promise<FetchedImage> {
  await using registry = await loopbackRegistry(image);
  const { reference } = registry;
  await using kept = new AsyncDisposableStack();
  kept.defer(() => remove(cli, reference, warn));
  const output = await pull(cli, registry);
  if (output.exitCode === 0) return kept.move();
  throw new HandoverError(
    'load-failed',
    `The engine can't fetch layers from this step: ${lastLine(output) || 'it did not ask'}.`,
    'Set `overlap: false`.',
  );
}

async function pull(cli: DockerCli, { reference, reached, failed }: LoopbackRegistry): Promise<CliOutput> {
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
  return output;
}

// After a failed pull there is mostly nothing to remove; after one that was killed, there may be.
async function remove(cli: DockerCli, reference: string, warn: (text: string) => void): Promise<void> {
  const output = await cli.cleanUp(['image', 'rm', reference]);
  if (output.exitCode === 0 || saysNoSuchImage(output.stderr)) return;
  warn(`The reference ${reference} stays in the engine: ${lastLine(output)}`);
}
