import { HandoverError } from '../base/errors.ts';
import type { LentChunks } from '../bytes/chunks.ts';
import type { Log } from '../base/log.ts';
import type { Proxies } from '../http/proxies.ts';
import type { Digest } from '../image/digest.ts';

/** A workflow run, for people to look at. */
export interface RunLink {
  readonly id: number;
  readonly url: string;
}

/** A workflow artifact. */
export interface Artifact {
  readonly id: number;
  readonly name: string;
  /** Bytes of the blob. */
  readonly size: number;
  readonly digest?: Digest;
  readonly createdAt?: string;
  /** The run it is of, when that isn't this job's own. */
  readonly run?: RunLink;
}

/** One file that goes into an artifact. */
export interface ArtifactFile {
  readonly name: string;
  /** Bytes; undefined when that is known only at the end. */
  readonly size: number | undefined;
  readonly chunks: LentChunks;
}

export interface UploadRequest {
  readonly name: string;
  /** 0 is the repository's default. */
  readonly retentionDays: number;
  /** Written one after the other; a later file may be decided when an earlier one has passed. */
  readonly files: AsyncIterable<ArtifactFile>;
  readonly onBytes: (bytes: number) => void;
}

/** Where an artifact's file begins and how to read it. */
export interface ArtifactContent {
  readonly artifact: Artifact;
  /**
   * Bytes that it took to bring the whole of it to this machine, where it was brought as a whole: 0 when it was here.
   * Undefined where it isn't, and what is read is what is downloaded.
   */
  readonly downloaded: () => number | undefined;
  /** The text of a small file in the artifact, or undefined when it isn't there. */
  text(name: string): Promise<string | undefined>;
  /** Names and sizes (bytes, unzipped) of the files; one of unknown name for a raw artifact. */
  readonly files: readonly { readonly name: string; readonly size: number }[];
  /**
   * One file's bytes, in order. Before the last bytes are given out, the whole artifact's size, CRC and digest have
   * been checked: a consumer that got the end got the right bytes.
   * @throws HandoverError `artifact-corrupt` or `transfer-failed` while iterating
   */
  read(name: string, onBytes: (bytes: number) => void): AsyncIterable<Buffer>;
  /** Parts of one file, unchecked; undefined when the artifact can't be read in parts. */
  ranges(name: string): Promise<ReadRange | undefined>;
}

/** Reads a file's bytes from `start` up to but not including `end`; `onBytes` is told of each part that has come. */
export type ReadRange = (start: number, end: number, onBytes: (bytes: number) => void) => LentChunks;

/** The artifacts of one workflow run, to read: this job's own run or another one. */
export interface ArtifactReader extends AsyncDisposable {
  /**
   * The artifacts of the run, newest first, over all its attempts.
   * @throws HandoverError `transfer-failed`; for another run also `run-not-found`, `artifact-not-found`, `artifact-expired`
   */
  list(): Promise<readonly Artifact[]>;
  open(artifact: Artifact): Promise<ArtifactContent>;
}

/** The artifacts of this job's own run, to read and write. */
export interface ArtifactStore extends ArtifactReader {
  /** @throws HandoverError `artifact-name-taken` when the name is in use, `transfer-failed` */
  upload(request: UploadRequest): Promise<Artifact>;
  /** Removes an artifact that this store has listed; one that is gone already is no trouble. */
  remove(artifact: Artifact): Promise<void>;
}

/** What each store needs. */
export interface StoreOptions {
  readonly proxies: Proxies;
  /** For whole artifacts, when the official client downloads them or a server doesn't answer with parts. */
  readonly tempRoot: string;
  readonly log: Pick<Log, 'info' | 'notice' | 'progress'>;
  /** Keeps the signature of a signed URL out of the log. */
  readonly maskSecret: (secret: string) => void;
  readonly signal: AbortSignal;
}

export function corruptArtifact(message: string, cause?: unknown): HandoverError {
  return new HandoverError('artifact-corrupt', message, 'Run the job that exports the image again.', cause);
}
