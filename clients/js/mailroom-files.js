// @ts-check
/**
 * Uploads files through Mailroom, straight from a browser to S3: a form POST for small files, parts for large ones,
 * with progress, retries, fresh signatures, and going on after a reload. No dependency, no framework, one file.
 *
 *     const mailroom = new MailroomFiles({ token: () => session.token });
 *     const file = await mailroom.upload(input.files[0], { category: "document", onProgress: draw });
 *
 * Every failure is an `UploadError`, see the classes below: `code` for programs, `message` and `advice` for people.
 */

/**
 * @import {
 *   ClientOptions, ErrorCode, MailroomFile, MailroomFiles as Client, Progress, Store, Unfinished,
 *   UploadError as Told, UploadOptions,
 * } from "./mailroom-files.d.ts"
 */

/** @typedef {{partNumber: number, size: number, url: string, headers?: Record<string, string>}} SignedPart */
/** @typedef {{fileId: string, expiresAt: string, method: "post", uploadUrl: string, fields: Record<string, string>}} PostTicket */
/** @typedef {{fileId: string, expiresAt: string, method: "multipart", uploadToken: string, partSize: number, partCount: number, parts: SignedPart[]}} PartsTicket */
/** @typedef {{fileId: string, uploadToken: string, partSize: number, partCount: number}} Multipart */
/** @typedef {{status: number, etag: string | null, text: string}} Answer */
/** @typedef {{field?: string, message?: string, reason?: string}} Detail */

/**
 * One call of `upload`.
 * @typedef {object} Run
 * @property {Blob} file
 * @property {string} name
 * @property {UploadOptions} options
 * @property {Record<string, unknown>} request What `upload-url` is asked; the same at every repeat.
 * @property {string} idempotencyKey
 * @property {string} [key] Place in the store; none = not kept.
 * @property {AbortSignal} signal
 * @property {Meter} meter
 * @property {string} [fileId]
 * @property {string} [uploadToken]
 * @property {boolean} [finishing]
 * @property {string} [user] Whose it is; "" = nobody knows.
 * @property {string[]} [checksums] SHA-256 of each part, where S3 holds them to it.
 */

// --- errors ----------------------------------------------------------------------------------------------------

/**
 * @typedef {object} ErrorInfo
 * @property {number} [status] Of the answer, if there was one.
 * @property {Detail[]} [details] Of the answer: which fields are wrong, and why.
 * @property {string} [advice] Instead of the usual one of its class.
 * @property {boolean} [again] Whether the same call may work later.
 * @property {number} [retryAfter] Seconds.
 * @property {boolean} [stale] The signature is at fault: a new one may work at once.
 */

/**
 * The root of all errors here. `again`: calling `upload` with the same file may work, and goes on where it stopped.
 * @implements {Told}
 */
export class UploadError extends Error {
  /**
   * @param {ErrorCode} code For programs and translations.
   * @param {string} message What happened.
   * @param {string} advice What to do about it.
   * @param {ErrorInfo} [info]
   */
  constructor(code, message, advice, info = {}) {
    super(message);
    this.name = "UploadError";
    this.code = code;
    this.advice = info.advice ?? advice;
    this.status = info.status;
    this.details = info.details ?? [];
    this.again = info.again ?? false;
    this.retryAfter = info.retryAfter;
    /** @internal */
    this.stale = info.stale ?? false;
  }
}

/** The category does not take this type or name, or the file is not what its type says. */
export class TypeRefusedError extends UploadError {
  /** @param {string} message @param {ErrorInfo} [info] */
  constructor(message, info) {
    super("typeRefused", message, "Choose a file of another type, or another category.", info);
    this.name = "TypeRefusedError";
  }
}

/** More bytes than the caller or the category allows. */
export class TooLargeError extends UploadError {
  /** @param {string} message @param {ErrorInfo} [info] */
  constructor(message, info) {
    super("tooLarge", message, "Choose a smaller file, or another category.", info);
    this.name = "TooLargeError";
  }
}

/** There is nothing to upload. */
export class EmptyError extends UploadError {
  /** @param {string} [message] @param {ErrorInfo} [info] */
  constructor(message = "The file is empty.", info) {
    super("empty", message, "Choose a file that holds something.", info);
    this.name = "EmptyError";
  }
}

/** No answer, in spite of all tries. */
export class NetworkError extends UploadError {
  /** @param {string} message @param {ErrorInfo} [info] */
  constructor(message, info) {
    super("network", message, "Check the connection and try again.", { again: true, ...info });
    this.name = "NetworkError";
  }
}

/** The time for this upload is over, or somebody gave it up: what was sent is gone. */
export class ExpiredError extends UploadError {
  /** @param {string} message @param {ErrorInfo} [info] */
  constructor(message, info) {
    super("expired", message, "Upload the file again from the start.", info);
    this.name = "ExpiredError";
  }
}

/** The caller's signal was aborted. Its name is `AbortError`, as everywhere in browsers. */
export class AbortedError extends UploadError {
  constructor() {
    super("aborted", "The upload was cancelled.", "Choose the file again to upload it after all.");
    this.name = "AbortError";
  }
}

/** The browser can no longer read the file: changed, moved or deleted since it was chosen. */
export class UnreadableError extends UploadError {
  constructor() {
    super("unreadable", "The file was changed, moved or deleted since it was chosen.", "Choose it again.");
    this.name = "UnreadableError";
  }
}

/** The service or S3 said no: `status` and `details` tell why. */
export class ServerError extends UploadError {
  /** @param {string} message @param {ErrorInfo} [info] */
  constructor(message, info) {
    super("server", message, adviceFor(info), info);
    this.name = "ServerError";
  }
}

/** @param {ErrorInfo} [info] */
function adviceFor(info) {
  if (info?.status === 401) return "Sign in again, then try again.";
  if (info?.status === 403) return "Ask an administrator for the permission to upload here.";
  return info?.again ? "Try again in a few minutes." : "Choose the file and upload it again; if it is refused again, ask for help.";
}

const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);
/** S3's words for what may pass, whatever status they come with. */
const PASSING_CODES = new Set(["RequestTimeout", "SlowDown", "InternalError", "BadDigest", "XAmzContentChecksumMismatch"]);
/** S3's words for a signature whose credentials are over; they come as 400. */
const STALE_CODES = new Set(["ExpiredToken", "TokenRefreshRequired"]);

/** @param {string} reason Why the service failed an upload. @param {string} message @param {ErrorInfo} info @returns {UploadError | undefined} */
function byReason(reason, message, info) {
  if (reason === "tooLarge") return new TooLargeError(message, info);
  if (reason === "typeMismatch") return new TypeRefusedError(message, info);
  if (reason === "empty") return new EmptyError(message, info);
  if (reason === "expired" || reason === "aborted") return new ExpiredError(message, info);
  return undefined;
}

/**
 * The error that an answer of the service stands for.
 * @param {number} status
 * @param {any} body
 * @param {string | null} retryAfter
 * @returns {UploadError}
 */
function refusal(status, body, retryAfter) {
  /** @type {Detail[]} */
  const details = Array.isArray(body?.details) ? body.details : [];
  const told = details.flatMap((each) => (typeof each.message === "string" ? [each.message] : []));
  const said = typeof body?.error === "string" ? body.error : `The service answered ${status}.`;
  const rest = told.map(sentence).join(" ");
  const message = told.length === 0 ? said : status === 400 ? rest : `${said} ${rest}`; // a 400 says the first of them in its error
  const seconds = Number(retryAfter ?? NaN);
  const info = { status, details, again: PASSING.has(status), ...(seconds >= 0 ? { retryAfter: seconds } : {}) };
  const reason = details.find((each) => typeof each.reason === "string")?.reason;
  const found = reason ? byReason(reason, message, info) : undefined;
  if (found) return found;
  const fields = new Set(details.map((each) => each.field));
  const refused = told.length > 0 ? `The file is refused: ${rest}` : message;
  if (status === 413 || fields.has("maxSizeBytes") || fields.has("size")) return new TooLargeError(refused, info);
  if (fields.has("contentType") || fields.has("fileName")) return new TypeRefusedError(refused, info);
  if (status === 410) return new ExpiredError(message, info);
  return new ServerError(message, info);
}

/**
 * The error that an answer of S3 stands for; none = it took the bytes.
 * @param {Answer} answer
 * @returns {UploadError | undefined}
 */
function s3Refusal({ status, text }) {
  if (status >= 200 && status < 300) return undefined;
  const code = /<Code>([^<]*)<\/Code>/.exec(text)?.[1] ?? "";
  const said = /<Message>([^<]*)<\/Message>/.exec(text)?.[1] ?? "";
  const message = `The storage answered ${[status, code].join(" ").trim()}${said ? `: ${said}` : "."}`;
  if (code === "EntityTooLarge") return new TooLargeError("The file is larger than was agreed.", { status });
  if (code === "NoSuchUpload") return new ExpiredError("The time for this upload is over.", { status });
  const stale = status === 403 || STALE_CODES.has(code);
  return new ServerError(message, { status, stale, again: stale || PASSING.has(status) || PASSING_CODES.has(code) });
}

/** @param {string} text */
function sentence(text) {
  const trimmed = text.trim();
  return /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}

// --- the client ------------------------------------------------------------------------------------------------

/**
 * Uploads, lists and links files. Make one for a page: it holds the limit of transfers at a time.
 * @implements {Client}
 */
export class MailroomFiles {
  #baseUrl;
  #token;
  #user;
  #store;
  #parallel;
  #retries;
  #backoffMs;
  #stallMs;
  #offlineMs;
  #slots;
  /** Keys of uploads under way here: the same file chosen twice is uploaded twice. @type {Set<string>} */
  #running = new Set();

  /** @param {ClientOptions} [options] */
  constructor(options = {}) {
    this.#baseUrl = (options.baseUrl ?? "").replace(/\/+$/, "");
    this.#token = options.token;
    this.#user = options.user;
    this.#store = options.store ?? new LocalStore();
    this.#parallel = Math.max(1, options.parallel ?? 3);
    this.#retries = options.retries ?? 5;
    this.#backoffMs = options.backoffMs ?? 500;
    this.#stallMs = options.stallMs ?? 60_000;
    this.#offlineMs = options.offlineMs ?? 600_000;
    this.#slots = new Slots(this.#parallel);
  }

  /**
   * Upload one file; the promise holds the completed File.
   *
   * The same file with the same options goes on where an earlier try stopped, if that was in parts and is not over.
   * @param {Blob | File} file
   * @param {UploadOptions} options
   * @returns {Promise<MailroomFile>}
   * @throws {UploadError} See its subclasses. After one with `again`, call `upload` again to go on.
   */
  async upload(file, options) {
    const stop = new AbortController();
    const unlink = follow(options.signal, stop);
    /** @type {Run | undefined} */
    let run;
    try {
      run = await this.#prepare(file, options, stop.signal);
      return await this.#upload(run);
    } catch (error) {
      stop.abort(); // parts that are still on their way
      if (options.signal?.aborted) {
        if (run) await this.#giveUp(run);
        throw new AbortedError();
      }
      throw run ? await this.#told(run, error) : error;
    } finally {
      unlink();
      if (run?.key) this.#running.delete(run.key);
    }
  }

  /**
   * Uploads in parts that this user began in this browser and that can go on: give the same file to `upload` again. Of one
   * that was begun where nobody knew the user, the service is asked whose it is.
   * @returns {Promise<Unfinished[]>}
   */
  async unfinished() {
    const found = [];
    const user = await this.#who();
    for (const [key, record] of await this.#store.entries()) {
      if (Date.parse(record.expiresAt) <= Date.now()) await this.#store.remove(key);
      else if (!this.#running.has(key) && (record.user ? record.user === user : await this.#isTheirs(record))) found.push(record);
    }
    return found;
  }

  /** Whether the service takes the upload for the caller's. @param {Unfinished} record */
  async #isTheirs({ uploadToken }) {
    try {
      await this.#call("POST", "/api/files/parts/list", { uploadToken });
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Give an unfinished upload up, here and in S3.
   * @param {Unfinished} record
   */
  async discard(record) {
    for (const [key, each] of await this.#store.entries()) if (each.fileId === record.fileId) await this.#store.remove(key);
    await this.#call("POST", "/api/files/abort", { uploadToken: record.uploadToken });
  }

  /**
   * One page of the caller's files, newest first.
   * @param {Record<string, string | number>} [query] page or cursor, limit, category, status, tag, clientId, q.
   * @returns {Promise<{files: MailroomFile[], total?: number, nextCursor?: string}>}
   */
  async list(query = {}) {
    const asked = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
    return this.#call("GET", `/api/files?${asked}`);
  }

  /**
   * A link to the file's bytes, good for a few minutes.
   * @param {string} fileId
   * @returns {Promise<{url: string, expiresAt: string}>}
   */
  async downloadLink(fileId) {
    return this.#call("GET", `/api/files/${encodeURIComponent(fileId)}/download`);
  }

  // --- one upload ---

  /**
   * @param {Blob | File} file
   * @param {UploadOptions} options
   * @param {AbortSignal} signal
   * @returns {Promise<Run>}
   */
  async #prepare(file, options, signal) {
    const name = options.name ?? ("name" in file ? file.name : "");
    const limit = options.maxSizeBytes;
    if (!name) throw new TypeError("a Blob without a name needs the option `name`");
    if (file.size === 0) throw new EmptyError();
    if (limit !== undefined && file.size > limit) throw new TooLargeError(`The file has ${file.size} bytes; at most ${limit} are allowed.`);
    const { category, isPublic, clientId, tags, method } = options;
    const checksums = options.checksum !== undefined && file.size > WHOLE_LIMIT ? await checksumsOf(file, signal) : undefined;
    const checksum = checksums ? await checksumOfParts(checksums) : options.checksum;
    const user = await this.#who();
    const request = {
      fileName: name,
      contentType: options.contentType ?? contentTypeOf(name, file.type),
      category,
      size: file.size,
      maxSizeBytes: file.size,
      ...(isPublic === undefined ? {} : { isPublic }),
      ...(clientId === undefined ? {} : { clientId }),
      ...(tags || checksum ? { metadata: { ...(tags ? { tags } : {}), ...(checksum ? { checksum } : {}) } } : {}),
      ...(method === undefined ? {} : { method }),
    };
    const meter = new Meter(file.size, options.onProgress);
    const run = { file, name, options, request, signal, idempotencyKey: randomId(), meter, ...(checksums ? { checksums } : {}) };
    const key = JSON.stringify([this.#baseUrl, user ?? "", lastModified(file), request]);
    if (this.#running.has(key)) return run;
    this.#running.add(key);
    return { ...run, key, user: user ?? "" };
  }

  /** @param {Run} run @returns {Promise<MailroomFile>} */
  async #upload(run) {
    run.meter.say("preparing");
    const known = run.key ? await this.#store.get(run.key) : undefined;
    const resumed = known ? await this.#resume(run, known) : undefined;
    if (resumed) return resumed;
    const begun = await this.#slots.use(run.signal, async () => {
      const ticket = await this.#begin(run);
      return "method" in ticket && ticket.method === "post" ? this.#sendForm(run, ticket) : ticket;
    });
    if (!("method" in begun)) return begun;
    run.uploadToken = begun.uploadToken;
    await this.#keep(run, begun);
    return this.#sendParts(run, begun, begun.parts, new Map());
  }

  /**
   * Ask for the upload. Asked again with the same key, the service signs anew, or gives the File if it is settled. One
   * that ran out before its form arrived is begun anew: nothing of it is lost.
   * @param {Run} run
   * @returns {Promise<PostTicket | PartsTicket | MailroomFile>}
   */
  async #begin(run) {
    /** @returns {Promise<(PostTicket | PartsTicket) & {file?: MailroomFile}>} */
    const ask = () =>
      this.#call("POST", "/api/files/upload-url", run.request, { signal: run.signal, headers: { "Idempotency-Key": run.idempotencyKey } });
    const answer = await this.#persist(run, async () => {
      const known = await ask().catch((error) => {
        if (run.fileId && error instanceof ExpiredError) return undefined;
        throw error;
      });
      if (known && known.file?.failure?.reason !== "expired") return known;
      run.idempotencyKey = randomId();
      return ask();
    });
    run.fileId = answer.fileId;
    return answer.file ? settled(answer.file) : answer;
  }

  /**
   * Send all in one form. S3 wants the fields first and the file last.
   * @param {Run} run
   * @param {PostTicket} first
   * @returns {Promise<MailroomFile>}
   */
  async #sendForm(run, first) {
    /** @type {PostTicket | undefined} */
    let ticket = first;
    const done = await this.#persist(run, async () => {
      const again = ticket ?? (await this.#begin(run));
      if (!("method" in again)) return again; // it had arrived: only the answer was lost
      if (again.method !== "post") throw new ServerError("The service changed its mind about the way of this upload.");
      ticket = undefined; // a second try has a signature of its own
      const form = new FormData();
      for (const [name, value] of Object.entries(again.fields)) form.append(name, value);
      form.append("file", run.file, "file");
      const answer = await this.#transfer(run, "POST", again.uploadUrl, {}, form, (loaded, total) =>
        run.meter.move(1, Math.max(0, loaded - Math.max(0, total - run.file.size))),
      );
      const refused = s3Refusal(answer);
      if (refused) throw refused;
      return undefined;
    });
    if (done) return done;
    run.meter.land(1, run.file.size);
    return this.#complete(run, {});
  }

  /**
   * Send what is missing in parts, a few at a time, and complete.
   * @param {Run} run
   * @param {Multipart} upload
   * @param {SignedPart[]} signed Some that are signed already.
   * @param {Map<number, string | null>} there Part number → ETag of those that S3 has.
   * @returns {Promise<MailroomFile>}
   */
  async #sendParts(run, upload, signed, there) {
    const { partSize, partCount, uploadToken } = upload;
    const missing = Array.from({ length: partCount }, (_, index) => index + 1).filter((number) => !there.has(number));
    const signatures = new Signatures(signed, (numbers) =>
      this.#call("POST", "/api/files/parts", { uploadToken, partNumbers: numbers, ...checksumsFor(run, numbers) }, { signal: run.signal }),
    );
    const worker = async () => {
      for (let number = missing.shift(); number !== undefined; number = missing.shift()) {
        const next = number;
        const bytes = run.file.slice((next - 1) * partSize, next * partSize);
        there.set(next, await this.#slots.use(run.signal, () => this.#sendPart(run, next, bytes, signatures, missing)));
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.#parallel, missing.length) }, worker));
    if ([...there.values()].includes(null)) await this.#nameParts(run, upload, there);
    const parts = [...there].map(([partNumber, etag]) => ({ partNumber, etag })).sort((a, b) => a.partNumber - b.partNumber);
    return this.#complete(run, { uploadToken, parts });
  }

  /**
   * @param {Run} run
   * @param {number} number
   * @param {Blob} bytes
   * @param {Signatures} signatures
   * @param {number[]} missing Signed along with it.
   * @returns {Promise<string | null>} Its ETag, null if the bucket's CORS rules do not expose it.
   */
  async #sendPart(run, number, bytes, signatures, missing) {
    return this.#persist(run, async () => {
      const { url, headers } = await signatures.take(number, missing.slice(0, this.#parallel * 2 - 1));
      try {
        const answer = await this.#transfer(run, "PUT", url, headers ?? {}, bytes, (loaded) => run.meter.move(number, loaded));
        const refused = s3Refusal(answer);
        if (refused) throw refused;
        run.meter.land(number, bytes.size);
        return answer.etag;
      } catch (error) {
        run.meter.move(number, 0);
        // S3 may refuse and hang up before all is sent, which a browser sees as a cut connection.
        if (error instanceof NetworkError || (error instanceof UploadError && error.stale)) signatures.clear();
        throw error;
      }
    });
  }

  /** Ask for the ETags that could not be read. @param {Run} run @param {Multipart} upload @param {Map<number, string | null>} there */
  async #nameParts(run, upload, there) {
    const listed = await this.#persist(run, () => this.#listParts(run, upload.uploadToken));
    for (const { partNumber, etag } of listed.parts) there.set(partNumber, etag);
  }

  /**
   * Go on with an earlier try. Nothing = it cannot go on, begin anew.
   * @param {Run} run
   * @param {Unfinished} known
   * @returns {Promise<MailroomFile | undefined>}
   */
  async #resume(run, known) {
    let listed;
    try {
      listed = await this.#persist(run, () => this.#listParts(run, known.uploadToken));
    } catch (error) {
      if (!(error instanceof UploadError) || ![400, 404, 409, 410].includes(error.status ?? 0)) throw error;
      await this.#forget(run);
      return this.#perhapsComplete(run, known);
    }
    run.fileId = known.fileId;
    run.uploadToken = known.uploadToken;
    const { partSize, partCount } = listed;
    /** @type {Map<number, string | null>} */
    const there = new Map();
    for (const { partNumber, size, etag } of listed.parts) {
      if (size !== Math.min(partSize, run.file.size - (partNumber - 1) * partSize)) continue;
      there.set(partNumber, etag);
      run.meter.resume(partNumber, size);
    }
    const { fileId, uploadToken } = known;
    return this.#sendParts(run, { fileId, uploadToken, partSize, partCount }, [], there);
  }

  /** An upload that is no longer open may be complete: then only the answer was lost. @param {Run} run @param {Unfinished} known */
  async #perhapsComplete(run, { fileId, uploadToken }) {
    try {
      return settled(await this.#call("POST", "/api/files/upload-complete", { fileId, uploadToken, actualSize: run.file.size }, { signal: run.signal }));
    } catch (error) {
      if (error instanceof UploadError && error.again) throw error;
      return undefined;
    }
  }

  /**
   * @param {Run} run
   * @param {string} uploadToken
   * @returns {Promise<{parts: {partNumber: number, size: number, etag: string}[], partSize: number, partCount: number}>}
   */
  async #listParts(run, uploadToken) {
    return this.#call("POST", "/api/files/parts/list", { uploadToken }, { signal: run.signal });
  }

  /**
   * @param {Run} run
   * @param {Record<string, unknown>} more
   * @returns {Promise<MailroomFile>}
   */
  async #complete(run, more) {
    run.finishing = true;
    run.meter.say("finishing");
    const body = { fileId: run.fileId, actualSize: run.file.size, ...more };
    let conflicts = 0;
    const file = await this.#persist(run, async () => {
      try {
        return await this.#call("POST", "/api/files/upload-complete", body, { signal: run.signal });
      } catch (error) {
        // "Nothing has arrived" right after S3 took it: somebody else looked at it at the same moment.
        const early = error instanceof ServerError && error.status === 409 && !error.details.some((each) => each.reason);
        if (early && ++conflicts <= 2) throw new ServerError(error.message, { status: 409, details: error.details, again: true });
        throw error;
      }
    });
    await this.#forget(run);
    return settled(file);
  }

  // --- what is kept ---

  /** @param {Run} run @param {PartsTicket} ticket */
  async #keep(run, { fileId, uploadToken, partSize, partCount, expiresAt }) {
    if (!run.key) return;
    const { name, file, options } = run;
    const kept = { fileId, uploadToken, name, size: file.size, lastModified: lastModified(file) };
    const user = run.user ?? "";
    await this.#store.set(run.key, { ...kept, partSize, partCount, category: options.category, expiresAt, user });
  }

  /** @param {Run} run */
  async #forget(run) {
    if (run.key) await this.#store.remove(run.key);
  }

  /** Tell the service, without waiting for it: what is not heard, its sweeper finds. @param {Run} run */
  async #giveUp(run) {
    await this.#forget(run);
    if (!run.fileId) return;
    const parts = run.uploadToken && !run.finishing;
    const told = parts
      ? this.#call("POST", "/api/files/abort", { uploadToken: run.uploadToken }, { keepalive: true })
      : this.#call("DELETE", `/api/files/${encodeURIComponent(run.fileId)}`, undefined, { keepalive: true });
    told.catch(() => undefined);
  }

  /** What the caller is told of an error; the record goes when there is nothing to go on with. @param {Run} run @param {unknown} error */
  async #told(run, error) {
    if (!(error instanceof UploadError)) return error;
    if (!error.again && error.status !== 401 && error.status !== 403) await this.#forget(run);
    return error;
  }

  // --- the wire ---

  /**
   * Try until it works, fails for good or has failed too often.
   * @template T
   * @param {Run} run
   * @param {() => Promise<T>} attempt
   * @returns {Promise<T>}
   */
  async #persist(run, attempt) {
    let stale = 0;
    for (let failed = 0; ; ) {
      try {
        return await attempt();
      } catch (error) {
        if (run.signal.aborted || !(error instanceof UploadError) || !error.again) throw error;
        if (error.stale ? ++stale > 2 : ++failed > this.#retries) throw error;
        if (error.stale) continue;
        if (error instanceof NetworkError && !(await readable(run.file))) throw new UnreadableError();
        run.meter.say("waiting", error);
        if (error instanceof NetworkError && (await online(this.#offlineMs, run.signal))) failed = 0;
        await sleep(this.#pause(failed, error), run.signal);
      }
    }
  }

  /** @param {number} failed @param {UploadError} error */
  #pause(failed, error) {
    if (error.retryAfter !== undefined) return Math.min(error.retryAfter, 60) * 1000;
    return Math.min(this.#backoffMs * 2 ** Math.max(0, failed - 1), 15_000) * (0.5 + Math.random() / 2);
  }

  /** Whose uploads these are: as the page says, or the subject of the token. @returns {Promise<string | undefined>} */
  async #who() {
    if (this.#user !== undefined) return typeof this.#user === "function" ? this.#user() : this.#user;
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    return subjectOf(token);
  }

  /**
   * One call of the API.
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @param {{signal?: AbortSignal, headers?: Record<string, string>, keepalive?: boolean}} [how]
   * @returns {Promise<any>}
   */
  async #call(method, path, body, how = {}) {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    const headers = new Headers(how.headers);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    if (body !== undefined) headers.set("Content-Type", "application/json");
    const limit = new AbortController();
    const unlink = follow(how.signal, limit);
    const timer = setTimeout(() => limit.abort(), this.#stallMs);
    let answer, text;
    try {
      answer = await fetch(this.#baseUrl + path, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        signal: limit.signal,
        keepalive: how.keepalive ?? false,
        cache: "no-store",
      });
      text = await answer.text();
    } catch {
      if (how.signal?.aborted) throw new AbortedError();
      throw new NetworkError("The service cannot be reached.");
    } finally {
      clearTimeout(timer);
      unlink();
    }
    const envelope = parsed(text);
    if (answer.ok && envelope?.success === true) return envelope.data;
    if (answer.ok) throw new ServerError("The answer is not Mailroom's.", { status: answer.status, advice: "Check the address of the service." });
    throw refusal(answer.status, envelope, answer.headers.get("Retry-After"));
  }

  /**
   * One transfer to S3. By XMLHttpRequest, since fetch tells nothing of what was sent.
   * @param {Run} run
   * @param {"POST" | "PUT"} method
   * @param {string} url
   * @param {Record<string, string>} headers
   * @param {Blob | FormData} body
   * @param {(loaded: number, total: number) => void} moved
   * @returns {Promise<Answer>}
   * @throws {NetworkError} Cut, or stalled.
   */
  #transfer(run, method, url, headers, body, moved) {
    const { signal } = run;
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(new AbortedError());
      const xhr = new XMLHttpRequest();
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let watch;
      /** @param {() => void} end */
      const finish = (end) => {
        clearTimeout(watch);
        signal.removeEventListener("abort", cancel);
        end();
      };
      const cancel = () => {
        finish(() => reject(new AbortedError()));
        xhr.abort();
      };
      const stalled = () => {
        finish(() => reject(new NetworkError("The connection to the storage does not move.")));
        xhr.abort();
      };
      const alive = () => {
        clearTimeout(watch);
        watch = setTimeout(stalled, this.#stallMs);
      };
      signal.addEventListener("abort", cancel);
      xhr.open(method, url);
      for (const [name, value] of Object.entries(headers)) if (!BY_BROWSER.has(name.toLowerCase())) xhr.setRequestHeader(name, value);
      xhr.upload.onprogress = (event) => {
        alive();
        moved(event.loaded, event.total);
      };
      xhr.onload = () => finish(() => resolve({ status: xhr.status, etag: xhr.getResponseHeader("ETag"), text: xhr.responseText }));
      xhr.onerror = () => finish(() => reject(new NetworkError("The connection to the storage was cut.")));
      alive();
      xhr.send(body);
    });
  }
}

/** Up to so many bytes the service compares the SHA-256 of the whole; above it S3 compares that of each part. */
const WHOLE_LIMIT = 100 * 1024 * 1024;

/** Bytes of every part but the last, as the service cuts it. @param {number} size */
function partSizeOf(size) {
  const mib = 1024 * 1024;
  return Math.max(8 * mib, Math.ceil(Math.ceil(size / 10_000) / mib) * mib);
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
function base64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

/** SHA-256 of each part in base64, one part in memory at a time. @param {Blob} file @param {AbortSignal} signal */
async function checksumsOf(file, signal) {
  if (!globalThis.crypto?.subtle) throw new TypeError("a checksum of more than 100 MiB needs a page with TLS");
  const found = [];
  const each = partSizeOf(file.size);
  for (let at = 0; at < file.size; at += each) {
    if (signal.aborted) throw new AbortedError();
    const bytes = await file.slice(at, at + each).arrayBuffer().catch(() => undefined);
    if (!bytes) throw new UnreadableError();
    found.push(base64(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))));
  }
  return found;
}

/** As S3 spells it: SHA-256 of the parts' SHA-256, and how many there are. @param {string[]} checksums */
async function checksumOfParts(checksums) {
  const all = Uint8Array.from(checksums.map(atob).join(""), (byte) => byte.charCodeAt(0));
  return `${base64(new Uint8Array(await crypto.subtle.digest("SHA-256", all)))}-${checksums.length}`;
}

/** @param {Run} run @param {number[]} numbers */
function checksumsFor(run, numbers) {
  return run.checksums ? { checksums: numbers.map((number) => run.checksums?.[number - 1]) } : {};
}

/** The subject of a JWT, which is only read here; nothing for any other token. @param {string | undefined} token @returns {string | undefined} */
function subjectOf(token) {
  const payload = token?.split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/");
  const subject = quietly(() => JSON.parse(atob(payload ?? "")))?.sub;
  return typeof subject === "string" && subject !== "" ? subject : undefined;
}

/** Set by browsers themselves, and never by scripts; they are signed all the same. */
const BY_BROWSER = new Set(["content-length", "host", "connection", "expect", "date"]);

/** A File that the service gives is good, or says why not. @param {MailroomFile} file @returns {MailroomFile} */
function settled(file) {
  if (file.status === "completed") return file;
  const message = file.failure?.detail ?? `The file is ${file.status}.`;
  throw (file.failure && byReason(file.failure.reason, message, {})) ?? new ServerError(message);
}

// --- parts of it -----------------------------------------------------------------------------------------------

/** Adds up what is sent, and tells. */
class Meter {
  /** Bytes by part: on their way, or there. @type {Map<number, number>} */
  #loaded = new Map();
  #resumed = 0;
  #total;
  #tell;

  /** @param {number} total @param {((progress: Progress) => void) | undefined} tell */
  constructor(total, tell) {
    this.#total = total;
    this.#tell = tell;
  }

  /** @param {Progress["phase"]} phase @param {UploadError} [error] */
  say(phase, error) {
    let loaded = 0;
    for (const bytes of this.#loaded.values()) loaded += bytes;
    const progress = { phase, loaded: Math.min(loaded, this.#total), total: this.#total, resumed: this.#resumed };
    this.#tell?.(error ? { ...progress, error } : progress);
  }

  /** @param {number} part @param {number} bytes */
  move(part, bytes) {
    this.#loaded.set(part, bytes);
    this.say("uploading");
  }

  /** @param {number} part @param {number} bytes */
  land(part, bytes) {
    if (this.#loaded.get(part) !== bytes) this.move(part, bytes);
  }

  /** @param {number} part @param {number} bytes */
  resume(part, bytes) {
    this.#resumed += bytes;
    this.move(part, bytes);
  }
}

/** Signed parts: asked for in batches just before they are used, each used once. */
class Signatures {
  /** @type {Map<number, SignedPart>} */
  #signed;
  #ask;
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve();

  /** @param {SignedPart[]} signed @param {(numbers: number[]) => Promise<{parts: SignedPart[]}>} ask */
  constructor(signed, ask) {
    this.#signed = new Map(signed.map((part) => [part.partNumber, part]));
    this.#ask = ask;
  }

  /** One part's; if it must be asked for, `along` are asked for too. @param {number} number @param {number[]} along @returns {Promise<SignedPart>} */
  take(number, along) {
    const mine = this.#turn.then(async () => {
      if (!this.#signed.has(number)) {
        const wanted = [number, ...along.filter((each) => !this.#signed.has(each))];
        for (const part of (await this.#ask(wanted)).parts) this.#signed.set(part.partNumber, part);
      }
      const part = this.#signed.get(number);
      if (!part) throw new ServerError(`The service signed no part ${number}.`);
      this.#signed.delete(number);
      return part;
    });
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  /** All that are in hand may be stale. */
  clear() {
    this.#signed.clear();
  }
}

/** At most so many at a time, in the order of asking. */
class Slots {
  #free;
  /** @type {(() => void)[]} */
  #waiting = [];

  /** @param {number} count */
  constructor(count) {
    this.#free = count;
  }

  /**
   * @template T
   * @param {AbortSignal} signal
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async use(signal, work) {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise((/** @type {(value?: undefined) => void} */ go) => this.#waiting.push(go));
    try {
      if (signal.aborted) throw new AbortedError();
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}

/**
 * Unfinished uploads in localStorage. Where that is forbidden or full, nothing is kept and uploads work all the same.
 * @implements {Store}
 */
export class LocalStore {
  #prefix;

  /** @param {string} [prefix] */
  constructor(prefix = "mailroom-files:") {
    this.#prefix = prefix;
  }

  /** @param {string} key @returns {Unfinished | undefined} */
  get(key) {
    return quietly(() => parsed(localStorage.getItem(this.#prefix + key)) ?? undefined);
  }

  /** @param {string} key @param {Unfinished} record */
  set(key, record) {
    quietly(() => localStorage.setItem(this.#prefix + key, JSON.stringify(record)));
  }

  /** @param {string} key */
  remove(key) {
    quietly(() => localStorage.removeItem(this.#prefix + key));
  }

  /** @returns {[string, Unfinished][]} */
  entries() {
    const keys = quietly(() => Object.keys(localStorage)) ?? [];
    return keys.flatMap((full) => {
      const key = full.slice(this.#prefix.length);
      const record = full.startsWith(this.#prefix) ? this.get(key) : undefined;
      return record ? [/** @type {[string, Unfinished]} */ ([key, record])] : [];
    });
  }
}

/** @template T @param {() => T} work @returns {T | undefined} */
function quietly(work) {
  try {
    return work();
  } catch {
    return undefined;
  }
}

/** @param {string | null} text @returns {any} */
function parsed(text) {
  return quietly(() => JSON.parse(text ?? "null"));
}

/** Abort one with the other. @param {AbortSignal | undefined} signal @param {AbortController} controller @returns {() => void} */
function follow(signal, controller) {
  const abort = () => controller.abort();
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  return () => signal?.removeEventListener("abort", abort);
}

/** @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      if (signal.aborted) reject(new AbortedError());
      else resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

/** Wait while the browser knows that there is no network. Whether there was something to wait for. @param {number} ms @param {AbortSignal} signal @returns {Promise<boolean>} */
async function online(ms, signal) {
  if (navigator.onLine !== false) return false;
  const back = new AbortController();
  const unlink = follow(signal, back);
  const heard = () => back.abort();
  addEventListener("online", heard);
  await sleep(ms, back.signal).catch(() => undefined);
  removeEventListener("online", heard);
  unlink();
  return true;
}

/** @param {Blob} file */
async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/** @param {Blob | File} file */
function lastModified(file) {
  return "lastModified" in file ? file.lastModified : 0;
}

/** Not crypto.randomUUID, which pages without TLS do not have. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What browsers do not know, or know by names that depend on the programs installed. @type {Record<string, string>} */
const TYPES = {
  csv: "text/csv",
  eml: "message/rfc822",
  gz: "application/gzip",
  heic: "image/heic",
  heif: "image/heif",
  ics: "text/calendar",
  md: "text/markdown",
  msg: "application/vnd.ms-outlook",
  rtf: "application/rtf",
  vcf: "text/vcard",
  wav: "audio/wav",
  zip: "application/zip",
};

/** @param {string} name @param {string} type */
function contentTypeOf(name, type) {
  const extension = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  return TYPES[extension] ?? (type || "application/octet-stream");
}
