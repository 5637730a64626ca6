import { invalidInput } from '../base/errors.ts';
import { type JsonObject, stringOr } from '../base/json.ts';
import { quoteForeign } from '../base/text.ts';

/** `os/arch[/variant]` (OCI image-spec, image-index.md, "platform"). */
export interface Platform {
  readonly os: string;
  /** `unknown` if the config doesn't contain it. */
  readonly architecture: string;
  readonly variant?: string | undefined;
}

/** @throws HandoverError `invalid-input` when the text is not a single `os/arch[/variant]` */
export function parsePlatform(text: string): Platform {
  const match = /^([a-z0-9]+)\/([a-z0-9_]+)(?:\/([a-z0-9.]+))?$/.exec(text.trim());
  const [, os, architecture, variant] = match ?? [];
  if (os === undefined || architecture === undefined) {
    throw invalidInput(
      `"${quoteForeign(text)}" is not one platform of the form os/arch[/variant].`,
      'Hand over one platform per artifact, such as linux/amd64 or linux/arm64.',
    );
  }
  return platformOf(os, architecture, variant);
}

const unknown = 'unknown';

const architectureNames: Readonly<Record<string, string>> = {
  x64: 'amd64',
  x86_64: 'amd64',
  aarch64: 'arm64',
  armv7l: 'arm',
  i386: '386',
};

/** Returns a platform with the usual name of its architecture, and without a default variant. */
export function platformOf(os: string, name: string, variant?: string): Platform {
  const architecture = architectureNames[name] ?? (name || unknown);
  // Default variants of containerd/platforms: v8 for arm64, v1 for amd64.
  const isDefault = (architecture === 'arm64' && variant === 'v8') || (architecture === 'amd64' && variant === 'v1');
  return { os, architecture, variant: variant === '' || isDefault ? undefined : variant };
}

/** Reads the platform in a config or a descriptor. The default os is Linux. */
export function platformIn({ os, architecture, variant }: JsonObject): Platform {
  return platformOf(stringOr(os, '') || 'linux', stringOr(architecture, ''), stringOr(variant, undefined));
}

export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant].filter((part) => part !== undefined).join('/');
}

/** Returns whether two platforms are the same. An unknown architecture matches any. */
export function samePlatform(one: Platform, other: Platform): boolean {
  if (!isKnown(one) || !isKnown(other)) return one.os === other.os;
  const textOf = ({ os, architecture, variant }: Platform): string =>
    formatPlatform(platformOf(os, architecture, variant));
  return textOf(one) === textOf(other);
}

/** Returns whether an engine on platform `host` can run images for `image`: same os and architecture, any variant. */
export function runsOn(image: Platform, host: Platform): boolean {
  return image.os === host.os && (!isKnown(image) || image.architecture === host.architecture);
}

/** Returns whether the architecture is known. Engines also load images without an architecture. */
export function isKnown({ architecture }: Platform): boolean {
  return architecture !== unknown;
}
