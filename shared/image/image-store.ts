/** The facts about one kind of image store that the code depends on. A store's name is not among them. */
export interface ImageStore {
  /** Whose digest the engine uses as the image ID. */
  readonly imageIdIs: 'config' | 'manifest';
  /** Whether it keeps each layer as the manifest names it. Then it can lack a layer that it has unpacked for another image. */
  readonly keepsBlobs: boolean;
  /** Whether the engine's own builder exports OCI layouts, writes build caches and pushes. */
  readonly exportsLayouts: boolean;
  /** How many times the image's size is occupied while an image is loaded. */
  readonly sizesWhileLoading: number;
  /** Whether `inspect` returns the config unchanged. */
  readonly returnsConfig: boolean;
}

/** All kinds of image stores. A new one gets a row here, and `dockerStore` recognizes it. No other code compares stores. */
export const imageStores = {
  // It keeps the whole tarball next to the unpacked layers during a load.
  classic: {
    imageIdIs: 'config',
    keepsBlobs: false,
    exportsLayouts: false,
    sizesWhileLoading: 2,
    returnsConfig: true,
  },
  containerd: {
    imageIdIs: 'manifest',
    keepsBlobs: true,
    exportsLayouts: true,
    sizesWhileLoading: 1,
    returnsConfig: true,
  },
  podman: {
    imageIdIs: 'config',
    keepsBlobs: false,
    exportsLayouts: false,
    sizesWhileLoading: 1,
    returnsConfig: false,
  },
} as const satisfies Readonly<Record<string, ImageStore>>;

/** Returns the store of a Docker engine, from the `DriverStatus` in its info. */
export function dockerStore(driverStatus: string): ImageStore {
  return driverStatus.includes('io.containerd.snapshotter') ? imageStores.containerd : imageStores.classic;
}
