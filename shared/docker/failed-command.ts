import type { EngineName } from '../engine-name.ts';
import { HandoverError } from '../errors.ts';
import { quoteForeign } from '../text.ts';
import { type CliOutput, type DockerCli, lastLine } from './cli.ts';

const hints = {
  'load-failed': (program: EngineName) =>
    `Look for a full disk or an engine of another version on this runner: ${program} info; df -h.`,
  'image-missing': (program: EngineName) => `Check the engine: ${program} image ls.`,
  'image-not-found': (program: EngineName) => `Check that the image is in this engine: ${program} image ls.`,
} as const;

/** The error for a command that has failed, with the last thing it said. */
export function failedCommand(
  { program }: DockerCli,
  code: keyof typeof hints,
  args: readonly string[],
  output: CliOutput,
): HandoverError {
  const said = lastLine(output);
  const command = quoteForeign(`${program} ${args.join(' ')}`);
  return new HandoverError(
    code,
    `${command} failed with exit code ${String(output.exitCode)}: ${said}`,
    hints[code](program),
  );
}
