import type { PushInputs } from '../inputs.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { formatPlatform, parsePlatform, type Platform, samePlatform } from '../../shared/image/platform.ts';
import type { TaggedReference } from '../../shared/image/reference.ts';

/** What is pushed besides the handover. */
export interface PushPlan {
  readonly references: readonly [TaggedReference, ...TaggedReference[]];
  /** The platforms of a manifest list; empty pushes the very image that is handed over. */
  readonly listedPlatforms: readonly Platform[];
  readonly onFailure: 'error' | 'warn';
}

/**
 * @param tags the references to push under; the first is the one that the outputs name
 * @param source where the image comes from
 * @param platform the handover's
 * @throws HandoverError `invalid-input`
 */
export function planPush(
  inputs: PushInputs,
  tags: readonly TaggedReference[],
  source: 'build' | 'bake' | 'engine' | 'tarball',
  platform: Platform,
): PushPlan | undefined {
  const onFailure = chooseOnFailure(inputs.onFailure);
  const platforms = inputs.platforms.map(parsePlatform);
  if (!inputs.enabled) return undefined;
  if (source === 'tarball') {
    throw new HandoverError(
      'invalid-input',
      'A tarball (`source-tarball`) can be handed over, but not pushed.',
      'Remove `push: true`, or load the tarball first and set `source-image`.',
    );
  }
  const listedPlatforms = platforms.every((one) => samePlatform(one, platform)) ? [] : platforms;
  if (source === 'engine' && listedPlatforms.length > 0) {
    throw new HandoverError(
      'invalid-input',
      `\`push-platforms\` is ${platforms.map(formatPlatform).join(', ')}, but \`source-image\` is for one platform.`,
      'Remove `push-platforms`, or let this action build the image.',
    );
  }
  const [first, ...rest] = tags;
  if (first === undefined) throw noTags();
  return { references: [first, ...rest], listedPlatforms, onFailure };
}

function noTags(): HandoverError {
  return new HandoverError(
    'invalid-input',
    '`push` is true, but the input `tags` is empty: there is no reference to push under.',
    'Give `tags` the output of docker/metadata-action, references one a line, or `auto` with a `repository`.',
  );
}

function chooseOnFailure(text: string): PushPlan['onFailure'] {
  if (text === 'error' || text === 'warn') return text;
  throw new HandoverError(
    'invalid-input',
    `The input \`push-failure\` is "${quoteForeign(text)}"; expected error or warn.`,
    'Correct `push-failure` under `with:`.',
  );
}
