import { type DockerCli, lastLine } from './cli.ts';
import { saysNoSuchImage } from './output.ts';

/**
 * Removes an image that only this process knows of, if it is there, also when all else has been cancelled.
 * @param image its reference or ID
 * @param warn told if it stays
 */
export async function removeOwn(cli: DockerCli, image: string, warn: (text: string) => void): Promise<void> {
  const output = await cli.cleanUp(['image', 'rm', image]);
  if (output.exitCode === 0 || saysNoSuchImage(output.stderr)) return;
  warn(`The image ${image} stays in the engine: ${lastLine(output)}`);
}
