/**
 * The most that is taken of what others send: an artifact may be anybody's, and a service may answer with anything. Each stands far above
 * what honest images have, and far below what a runner's memory holds. SECURITY.md lists them.
 */
export const limits = {
  /** Of an answer that is read as text, in bytes. A listing of a thousand artifacts has half a megabyte. */
  answerBytes: 16 * 1024 * 1024,
  /** Of one config, manifest or index, in bytes: it is held in memory, more than once. */
  jsonBytes: 4 * 1024 * 1024,
  /** Of all configs, manifests and indexes of a tarball together, in bytes. */
  jsonBytesInAll: 32 * 1024 * 1024,
  /** Of the event's payload, in bytes: GitHub sends 25 MB at most (docs.github.com, "Webhook events and payloads"). */
  eventBytes: 32 * 1024 * 1024,
  /** Of a file with settings: docker's configuration, a certificate, what buildx says of a build. In bytes. */
  settingsBytes: 4 * 1024 * 1024,
  /** Values in one config, manifest or index: each takes time and memory. */
  jsonValues: 100_000,
  /** How deep JSON may be nested. */
  jsonDepth: 100,
  /** Of a record, in bytes: the labels of the largest config are in it. */
  recordBytes: 8 * 1024 * 1024,
  /** Files in an artifact's zip. */
  zipMembers: 1000,
  /** Entries of a tarball, folders and links included. */
  tarEntries: 100_000,
  /** Of a header that comes in front of a tarball's entry, in bytes: names are a few kilobytes at most (Linux, PATH_MAX). */
  tarHeaderBytes: 1024 * 1024,
  /** Characters of an entry's name or of a link's: PATH_MAX of Linux is 4096 bytes, and of other systems less. */
  tarNameLength: 4096,
  /** Links that lead from one name in a tarball to another; more are a circle. */
  tarLinks: 20,
  /** Indexes in indexes. */
  indexDepth: 4,
  /** Manifests and indexes that the indexes of a tarball name, each as often as it is named. */
  indexed: 10_000,
  /** Images in one artifact. */
  images: 101,
  /** References of one image. */
  references: 250,
  /** Layers of one image. */
  layers: 1000,
} as const;
