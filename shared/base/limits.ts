/** Limits for untrusted input. Each is far above the values of real images, and far below a runner's memory. SECURITY.md lists them. */
export const limits = {
  /** Bytes of a response that is read as text. A list of a thousand artifacts has half a megabyte. */
  answerBytes: 16 * 1024 * 1024,
  /** Bytes of one config, manifest or index. */
  jsonBytes: 4 * 1024 * 1024,
  /** Total bytes of all configs, manifests and indexes of a tarball. */
  jsonBytesInAll: 32 * 1024 * 1024,
  /** Bytes of the event's payload: GitHub's maximum is 25 MB (docs.github.com, "Webhook events and payloads"). */
  eventBytes: 32 * 1024 * 1024,
  /** Bytes of a settings file: docker's configuration, a certificate, buildx's metadata. */
  settingsBytes: 4 * 1024 * 1024,
  /** Values in one config, manifest or index. */
  jsonValues: 100_000,
  /** Levels of nested JSON. */
  jsonDepth: 100,
  /** Bytes of a record. It contains the labels of the largest config. */
  recordBytes: 8 * 1024 * 1024,
  /** Files in an artifact's zip. */
  zipMembers: 1000,
  /** Entries of a tarball, including folders and links. */
  tarEntries: 100_000,
  /** Bytes of the header of a tarball's entry. Names have a few kilobytes at most (Linux, PATH_MAX). */
  tarHeaderBytes: 1024 * 1024,
  /** Characters in the name of an entry or link: PATH_MAX is 4096 bytes on Linux, and less on other systems. */
  tarNameLength: 4096,
  /** Consecutive links from one name in a tarball to the next. More would be a cycle. */
  tarLinks: 20,
  /** Levels of nested indexes. */
  indexDepth: 4,
  /** References to manifests and indexes in the indexes of a tarball. */
  indexed: 10_000,
  /** Images in one artifact. */
  images: 101,
  /** References of one image. */
  references: 250,
  /** Layers of one image. */
  layers: 1000,
} as const;
