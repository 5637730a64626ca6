/** How layers are stored in a manifest (OCI image-spec, layer.md). */
export type LayerFormat = 'gzip' | 'zstd' | 'uncompressed';

/** How a layer of that format is called in a manifest. */
export function layerMediaType(format: LayerFormat): string {
  const suffix = { gzip: '+gzip', zstd: '+zstd', uncompressed: '' } as const;
  return `application/vnd.oci.image.layer.v1.tar${suffix[format]}`;
}
