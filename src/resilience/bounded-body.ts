/** Reading a body within a bound of bytes and time. */
import { err, ok, type Result } from "../wire/result.ts";

export type Body = ReadableStream<Uint8Array> | null;

/** How much of a body is read, and for how long. */
export type BodyLimits = { readonly maxBytes: number; readonly timeoutMs: number };

/** A body was longer than the caller takes. */
export class BodyTooLarge extends Error {
  readonly code = "BODY_TOO_LARGE";
  readonly maxBytes: number;

  constructor(maxBytes: number) {
    super(`body exceeds ${maxBytes} bytes`);
    this.name = "BodyTooLarge";
    this.maxBytes = maxBytes;
  }
}

/** Why a body was not read to its end. */
export type BodyFailure =
  | { readonly kind: "too-large" }
  | { readonly kind: "too-slow" }
  /** There was no share of the budget for it, see {@link BodyRoom}. */
  | { readonly kind: "no-room" }
  /** Its sender went away, or sent less than it announced. */
  | { readonly kind: "broken"; readonly error: unknown };

/** Asked before each chunk is kept, with its length in bytes; false ends the reading. */
export type BodyRoom = (bytes: number) => boolean;

/**
 * Reads a body of an unknown length. What is refused is discarded up to a cap, because a client that is still sending sees
 * a reset instead of the answer when nobody reads.
 *
 * @returns the bytes, none for no body, or why there are none
 */
export async function readBodyWithin(
  body: Body,
  limits: BodyLimits,
  hasRoom: BodyRoom = () => true,
): Promise<Result<Uint8Array, BodyFailure>> {
  if (body === null) return ok(new Uint8Array(0));
  const chunks: Uint8Array[] = [];
  let length = 0;
  let refused: BodyFailure | null = null;
  const ended = await underTimer(limits.timeoutMs, (signal) =>
    readChunks(body, signal, (chunk) => {
      length += chunk.byteLength;
      if (length > limits.maxBytes) refused = { kind: "too-large" };
      else if (!hasRoom(chunk.byteLength)) refused = { kind: "no-room" };
      else chunks.push(chunk);
      return refused === null;
    }),
  );
  switch (ended.how) {
    case "done":
      return ok(joined(chunks, length));
    case "stopped":
      ended.reader.releaseLock();
      await discardBody(body);
      return err(refused ?? { kind: "too-large" });
    case "aborted":
      return err({ kind: "too-slow" });
    case "broken":
      return err({ kind: "broken", error: ended.error });
  }
}

/** What is read and thrown away of a refused body, at most. */
const DISCARDED: BodyLimits = { maxBytes: 16 * 1_048_576, timeoutMs: 5_000 };

/** Reads what is left of a body and keeps nothing, up to a cap in bytes and in time; the rest is cancelled. */
export async function discardBody(body: Body, limits: BodyLimits = DISCARDED): Promise<void> {
  if (body === null || body.locked) return;
  let length = 0;
  const ended = await underTimer(limits.timeoutMs, (signal) =>
    readChunks(body, signal, (chunk) => {
      length += chunk.byteLength;
      return length <= limits.maxBytes;
    }),
  );
  if (ended.how === "stopped") cancel(ended.reader);
}

/**
 * Reads a body to its end, but no more than `maxBytes`; a longer one is cancelled at once, so that it costs neither
 * memory nor a connection.
 *
 * @param signal cancels the body when it aborts
 * @throws BodyTooLarge, the signal's reason, or the error of the stream
 */
export async function readBody(body: Body, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
  if (body === null) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let length = 0;
  const ended = await readChunks(body, signal, (chunk) => {
    length += chunk.byteLength;
    if (length <= maxBytes) chunks.push(chunk);
    return length <= maxBytes;
  });
  switch (ended.how) {
    case "done":
      return joined(chunks, length);
    case "stopped":
      throw tooLarge(ended.reader, maxBytes);
    case "aborted":
      throw signal.reason;
    case "broken":
      throw ended.error;
  }
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;
type Ended = { how: "done" | "aborted" } | { how: "broken"; error: unknown } | { how: "stopped"; reader: Reader };

function tooLarge(reader: Reader, maxBytes: number): BodyTooLarge {
  const error = new BodyTooLarge(maxBytes);
  cancel(reader, error);
  return error;
}

/** Hands every chunk to `take` until it returns false, the body ends, or the signal aborts, which cancels the body. */
async function readChunks(
  stream: ReadableStream<Uint8Array>,
  signal: AbortSignal,
  take: (chunk: Uint8Array) => boolean,
): Promise<Ended> {
  const reader = stream.getReader();
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<"aborted">((resolve) => {
    onAbort = () => resolve("aborted");
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    for (;;) {
      const next = signal.aborted ? "aborted" : await Promise.race([reader.read(), aborted]);
      if (next === "aborted") {
        cancel(reader, signal.reason);
        return { how: "aborted" };
      }
      if (next.done) return { how: "done" };
      if (!take(next.value)) return { how: "stopped", reader };
    }
  } catch (error) {
    cancel(reader, error);
    return { how: "broken", error };
  } finally {
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
  }
}

/** Runs `read` with a signal that aborts after its time; what it does with that is its own. */
async function underTimer<T>(timeoutMs: number, read: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timeoutMs);
  try {
    return await read(controller.signal);
  } finally {
    clearTimeout(timer);
  }
}

function cancel(reader: Reader, reason?: unknown): void {
  // A stream that is torn already rejects its cancellation, which then says nothing new.
  reader.cancel(reason).catch(() => undefined);
}

function joined(chunks: readonly Uint8Array[], length: number): Uint8Array {
  const [only] = chunks;
  if (chunks.length === 1 && only !== undefined) return only;
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return bytes;
}
