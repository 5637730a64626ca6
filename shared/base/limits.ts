/** Limits for untrusted input. Each is far above the values of real images, and far below a runner's memory. SECURITY.md lists them. */
export const limits = {
  /** Of a response that is read as text, in bytes. A list of a thousand artifacts has half a megabyte. */
  answerBytes: 16 * 1024 * 1024,
  /** Of one config, manifest or index, in bytes. */
  jsonBytes: 4 * 1024 * 1024,
  /** Of all configs, manifests and indexes of a tarball together, in bytes. */
  jsonBytesInAll: 32 * 1024 * 1024,
  /** Of the event's payload, in bytes: GitHub's maximum is 25 MB (docs.github.com, "Webhook events and payloads"). */
  eventBytes: 32 * 1024 * 1024,
  /** Of a file with settings, in bytes: docker's configuration, a certificate, buildx's metadata. */
  settingsBytes: 4 * 1024 * 1024,
  /** Values in one config, manifest or index. */
  jsonValues: 100_000,
  /** Levels of nested JSON. */
  jsonDepth: 100,
  /** Of a record, in bytes. It contains the labels of the largest config. */
  recordBytes: 8 * 1024 * 1024,
  /** Files in an artifact's zip. */
  zipMembers: 1000,
  /** Entries of a tarball, folders and links included. */
  tarEntries: 100_000,
  /** Of the header of a tarball's entry, in bytes. Names have a few kilobytes at most (Linux, PATH_MAX). */
  tarHeaderBytes: 1024 * 1024,
  /** Characters in the name of an entry or link: PATH_MAX of Linux is 4096 bytes, of other systems less. */
  tarNameLength: 4096,
  /** Links from one name in a tarball to another. More are a cycle. */
  tarLinks: 20,
  /** Indexes in indexes. */
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
