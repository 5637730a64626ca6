import type { LentChunks } from '../bytes/chunks.ts';
import type { Log } from '../base/log.ts';
import type { PartFigures } from './blob/slow-parts.ts';
import type { Proxies } from '../http/proxies.ts';
import type { Digest } from '../image/digest.ts';
import type { WorkflowHost } from '../image/host.ts';

/** A workflow run, as a link. */
export interface RunLink {
  readonly id: number;
  readonly url: string;
}

export interface Artifact {
  readonly id: number;
  readonly name: string;
  /** Size of the blob in bytes. */
  readonly size: number;
  readonly digest?: Digest | undefined;
  readonly createdAt?: string | undefined;
  /** The run that produced the artifact; undefined for this job's own run. */
  readonly run?: RunLink;
}

export interface ArtifactFile {
  readonly name: string;
  /** In bytes; undefined when the size is known only at the end of the file. */
  readonly size: number | undefined;
  readonly chunks: LentChunks;
}

export interface UploadRequest {
  readonly name: string;
  /** 0 means the repository's default. */
  readonly retentionDays: number;
  /** Written in order; a later file may depend on an earlier file. */
  readonly files: AsyncIterable<ArtifactFile>;
  readonly onBytes: (bytes: number) => void;
}

export interface ArtifactContent {
  readonly artifact: Artifact;
  /** Returns the number of downloaded bytes if the whole artifact is on this machine, 0 if it was made here; else undefined. */
  readonly downloaded: () => number | undefined;
  /** Returns the text of a small file in the artifact; undefined if there is no such file. */
  text(name: string): Promise<string | undefined>;
  /** Names and sizes (bytes, unzipped) of the files. A raw artifact has one file, whose name is unknown. */
  readonly files: readonly { readonly name: string; readonly size: number }[];
  /**
   * Reads one file in order. Returns the last bytes only after checking the whole artifact's size, CRC and digest.
   * @throws HandoverError `artifact-corrupt` or `transfer-failed` while iterating
   */
  read(name: string, onBytes: (bytes: number) => void): AsyncIterable<Buffer>;
  /** Returns a reader for unchecked parts of one file; undefined when the artifact can't be read in parts. */
  ranges(name: string): Promise<ReadRange | undefined>;
}

/** Reads a file's bytes from `start` up to but not including `end`; `onBytes` is called with each part's number of bytes. */
export type ReadRange = (start: number, end: number, onBytes: (bytes: number) => void) => LentChunks;

/** Reads the artifacts of one workflow run: this job's own run or another run. */
export interface ArtifactReader extends AsyncDisposable {
  /**
   * Lists the artifacts of all attempts of the run, newest first.
   * @throws HandoverError `transfer-failed`; for another run also `run-not-found`, `artifact-not-found`, `artifact-expired`
   */
  list(): Promise<readonly Artifact[]>;
  open(artifact: Artifact): Promise<ArtifactContent>;
}

/** Reads and writes the artifacts of this job's own run. */
export interface ArtifactStore extends ArtifactReader {
  /** @throws HandoverError `artifact-name-taken` when the name is in use, `transfer-failed` */
  upload(request: UploadRequest): Promise<Artifact>;
  /** Removes an artifact that this store has listed, unless it has been removed already. */
  remove(artifact: Artifact): Promise<void>;
}

export interface StoreOptions {
  readonly proxies: Proxies;
  readonly host: WorkflowHost;
  /** Folder for whole artifacts, when the official client downloads them or a server doesn't send parts. */
  readonly tempRoot: string;
  readonly log: Pick<Log, 'info' | 'notice' | 'progress'>;
  /** Keeps the signature of a signed URL out of the log. */
  readonly maskSecret: (secret: string) => void;
  readonly signal: AbortSignal;
  /** Collects the durations of all parts. */
  readonly figures?: PartFigures;
}
