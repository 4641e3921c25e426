/** Types of `mailroom-files.js`, which tells what each thing does in code. */

export type Category = "email" | "document" | "avatar" | "contract" | "invoice" | "backup" | "general";

/** A file as Mailroom keeps it. Times are ISO 8601 in UTC. */
export interface MailroomFile {
  fileId: string;
  key: string;
  /** A form of the name that every file system takes. */
  fileName: string;
  /** The name exactly as it was given. */
  originalName: string;
  contentType: string;
  /** Bytes as they are stored; known once it is completed. */
  size?: number;
  /** Stored as a gzip stream; browsers decode what the link gives. */
  contentEncoding?: "gzip";
  /** Bytes once decoded, where it is stored so. */
  originalSize?: number;
  category: Category;
  status: "uploading" | "completed" | "failed" | "deleted";
  scanStatus: "pending" | "clean" | "infected" | "unsupported" | "error";
  isPublic: boolean;
  userId: string;
  clientId?: string;
  metadata: { uploadedBy: string; ipAddress?: string; userAgent?: string; checksum?: string; tags: string[] };
  s3Info: { bucket: string; region: string; etag?: string; versionId?: string; storageClass?: string };
  access?: { downloadCount: number; lastAccessed?: string; expiresAt?: string };
  recoverable?: boolean;
  /** When its lifetime is over, and it is deleted. */
  keptUntil?: string;
  failure?: { reason: string; detail?: string };
  createdAt: string;
  updatedAt: string;
}

/** How far an upload is. */
export interface Progress {
  /** `waiting`: something failed and is tried again. */
  phase: "preparing" | "uploading" | "waiting" | "finishing";
  /** Bytes that are on their way or there. Falls when a part has to be sent again. */
  loaded: number;
  total: number;
  /** Bytes that were there from an earlier try. */
  resumed: number;
  /** While waiting: what failed. */
  error?: UploadError;
}

export interface UploadOptions {
  category: Category;
  /** Another name than the file's own; needed for a Blob, which has none. */
  name?: string;
  /** Another type than the one that the file's name and the browser tell. */
  contentType?: string;
  /** Refuse more than this before a byte moves. The category has a limit of its own. */
  maxSizeBytes?: number;
  isPublic?: boolean;
  clientId?: string;
  tags?: string[];
  /**
   * SHA-256 of the whole file in base64, held against what arrived. Above 100 MiB S3 compares no whole: then each part is held
   * to its own SHA-256, which is computed here from the file (with TLS), and this value itself is not compared.
   */
  checksum?: string;
  /** By default the service chooses, by size. */
  method?: "post" | "multipart";
  /** Aborting it gives the upload up, here and in S3. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** What is kept of an unfinished upload, for the user who began it. Whoever holds `uploadToken` and a token of the same user can go on with it. */
export interface Unfinished {
  fileId: string;
  uploadToken: string;
  name: string;
  size: number;
  lastModified: number;
  partSize: number;
  partCount: number;
  category: Category;
  expiresAt: string;
  user: string;
}

/** Where unfinished uploads are kept. */
export interface Store {
  get(key: string): Unfinished | undefined | Promise<Unfinished | undefined>;
  set(key: string, record: Unfinished): void | Promise<void>;
  remove(key: string): void | Promise<void>;
  entries(): [string, Unfinished][] | Promise<[string, Unfinished][]>;
}

export interface ClientOptions {
  /** Origin of the API; by default the page's own. */
  baseUrl?: string;
  /** Bearer token, or what gives a valid one, asked before each call. Without one the same-origin cookie has to do. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /**
   * Who is signed in: only their own unfinished uploads are kept, shown and gone on with. By default the subject of the token,
   * if that is a JWT. Where nobody knows, the service is asked whose an unfinished upload is.
   */
  user?: string | (() => string | undefined);
  /** By default a `LocalStore`. */
  store?: Store;
  /** Transfers at a time, over all uploads of this client: 3. */
  parallel?: number;
  /** Further tries of each part and call after errors that may pass: 5. */
  retries?: number;
  /** Before the first of them, in milliseconds; doubled each time, up to 15 s: 500. */
  backoffMs?: number;
  /** A transfer or call that does not move for so long counts as cut: 60,000. */
  stallMs?: number;
  /** How long to wait for a network that the browser knows to be away: 600,000. */
  offlineMs?: number;
}

/** Uploads, lists and links files. Make one for a page: it holds the limit of transfers at a time. */
export class MailroomFiles {
  constructor(options?: ClientOptions);
  /**
   * Upload one file; the promise holds the completed File. The same file with the same options goes on where an earlier
   * try stopped, if that was in parts and is not over. Rejects with an `UploadError`: after one with `again`, call it again.
   */
  upload(file: Blob | File, options: UploadOptions): Promise<MailroomFile>;
  /** Uploads in parts that this user began in this browser and that can go on: give the same file to `upload` again. */
  unfinished(): Promise<Unfinished[]>;
  /** Give an unfinished upload up, here and in S3. */
  discard(record: Unfinished): Promise<void>;
  /** One page of the caller's files. `query`: page or cursor, limit, category, status, tag, clientId, q (on the name). */
  list(query?: Record<string, string | number>): Promise<{ files: MailroomFile[]; total?: number; nextCursor?: string }>;
  /** A link to the file's bytes, good for a few minutes. */
  downloadLink(fileId: string): Promise<{ url: string; expiresAt: string }>;
}

/** Unfinished uploads in localStorage. Where that is forbidden or full, nothing is kept and uploads work all the same. */
export class LocalStore implements Store {
  constructor(prefix?: string);
  get(key: string): Unfinished | undefined;
  set(key: string, record: Unfinished): void;
  remove(key: string): void;
  entries(): [string, Unfinished][];
}

export type ErrorCode =
  | "typeRefused"
  | "tooLarge"
  | "empty"
  | "network"
  | "expired"
  | "aborted"
  | "unreadable"
  | "server";

/** The root of all errors of uploads. `message`: what happened. */
export class UploadError extends Error {
  protected constructor();
  /** For programs and translations. */
  readonly code: ErrorCode;
  /** What to do about it, for people. */
  readonly advice: string;
  /** Of the answer, if there was one. */
  readonly status: number | undefined;
  /** Of the answer: which fields are wrong, and why. */
  readonly details: { field?: string; message?: string; reason?: string }[];
  /** Whether the same call may work later. It goes on where it stopped. */
  readonly again: boolean;
  /** Seconds, if the service named them. */
  readonly retryAfter: number | undefined;
}

/** The category does not take this type or name, or the file is not what its type says. */
export class TypeRefusedError extends UploadError {}
/** More bytes than the caller or the category allows. */
export class TooLargeError extends UploadError {}
/** There is nothing to upload. */
export class EmptyError extends UploadError {}
/** No answer, in spite of all tries. */
export class NetworkError extends UploadError {}
/** The time for this upload is over, or somebody gave it up: what was sent is gone. */
export class ExpiredError extends UploadError {}
/** The caller's signal was aborted. Its `name` is `AbortError`, as everywhere in browsers. */
export class AbortedError extends UploadError {}
/** The browser can no longer read the file: changed, moved or deleted since it was chosen. */
export class UnreadableError extends UploadError {}
/** The service or S3 said no: `status` and `details` tell why. */
export class ServerError extends UploadError {}
