import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import type { LayerCompression, LayerFormat } from '../../shared/image/manifest.ts';

/** The compression of layers that are not compressed yet. */
export interface NewLayers {
  /** For layers from BuildKit, which also uses the compressed blobs for later pushes and caches. */
  readonly built: LayerCompression;
  /** For layers from an engine's `save`, which this action compresses. */
  readonly saved: LayerCompression;
}

// The meaning of `auto` (docs/decisions/0029-what-others-meet-is-gzip.md).
const automatic = { built: 'gzip', saved: 'zstd' } as const;
const automaticLevel = '1';

// The lowest and highest levels that both BuildKit and Node accept.
const levels: Readonly<Record<LayerFormat, readonly [number, number] | undefined>> = {
  gzip: [0, 9],
  zstd: [1, 22],
  uncompressed: undefined,
};

/**
 * Returns the compression of new layers from the inputs `compression` and `compression-level`.
 * @throws HandoverError `invalid-input`
 */
export function chooseCompression(compression: string, level: string | undefined): NewLayers {
  const format = compression.trim();
  if (format === 'auto') {
    const ofFormat = (each: LayerFormat) => ({ format: each, level: chooseLevel(each, level ?? automaticLevel) });
    return { built: ofFormat(automatic.built), saved: ofFormat(automatic.saved) };
  }
  if (format !== 'gzip' && format !== 'zstd' && format !== 'uncompressed') {
    throw invalidInput(
      `The input \`compression\` is "${quoteForeign(compression)}"; expected auto, gzip, zstd or uncompressed.`,
      'Remove it to use the default, which is the fastest in most cases.',
    );
  }
  const chosen: LayerCompression = { format, level: level === undefined ? undefined : chooseLevel(format, level) };
  return { built: chosen, saved: chosen };
}

function chooseLevel(format: LayerFormat, text: string): number {
  const range = levels[format];
  const level = /^\d{1,2}$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (range !== undefined && level >= range[0] && level <= range[1]) return level;
  throw invalidInput(
    `The input \`compression-level\` is "${quoteForeign(text)}"; expected ` +
      (range === undefined
        ? `none for ${format} layers.`
        : `a whole number from ${String(range[0])} to ${String(range[1])} for ${format}.`),
    'Remove it to use the default level.',
  );
}
