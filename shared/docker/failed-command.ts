import { HandoverError } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { type CliOutput, type DockerCli, lastLine } from './cli.ts';
import type { EngineName } from '../image/engine-name.ts';

const hints = {
  'load-failed': (program: EngineName) =>
    `Look for a full disk or an engine of another version on this runner: ${program} info; df -h.`,
  'image-missing': (program: EngineName) => `Check the engine: ${program} image ls.`,
  'image-not-found': (program: EngineName) => `Check that the image is in this engine: ${program} image ls.`,
} as const;

// What the engine's own words mean, where that isn't plain.
const meanings: readonly (readonly [RegExp, string])[] = [
  [
    // moby layer/layer_store.go, maxLayerDepth
    /max depth exceeded/,
    "The engine's classic image store takes 125 layers at most, and the image has more. Build it with fewer: join RUN and COPY " +
      'instructions, or copy the result into a last stage (COPY --from). The containerd image store takes it as it is.',
  ],
];

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
    meanings.find(([words]) => words.test(said))?.[1] ?? hints[code](program),
  );
}
