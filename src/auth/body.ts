/**
 * The request's body: read once, bounded while it streams, before it is hashed. What is refused is discarded up to a
 * cap, because a client that is still sending sees a reset instead of the answer when nobody reads.
 */
import { errorFields } from "../telemetry/log.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

/** Contract §3: a JSON body ≤ 1 MiB. */
export const MAX_BODY_BYTES = 1_048_576;
/** A client that needs longer than this for 1 MiB is holding a connection, not sending a message. */
const READ_TIMEOUT_MS = 30_000;
/** What is read and thrown away of a refused body, at most. */
const DISCARD_MAX_BYTES = 16 * MAX_BODY_BYTES;
const DISCARD_TIMEOUT_MS = 5_000;

type Body = ReadableStream<Uint8Array> | null;
type Limits = { readonly maxBytes: number; readonly timeoutMs: number };

/**
 * @returns the length that is announced, which the platform holds the body to, or null when none is; a refusal when it is
 *          too long already
 */
export function checkAnnouncedLength(headers: Headers): Result<number | null, Refusal> {
  const announced = headers.get("Content-Length");
  if (announced === null) return ok(null);
  const bytes = Number(announced);
  return bytes > MAX_BODY_BYTES ? err(refusal("body-too-large", { announcedBytes: bytes })) : ok(bytes);
}

/** A body of an announced length is bounded already, and is read in one go: watching it chunk by chunk costs a timer. */
export async function readAnnouncedBody(request: Request): Promise<Result<Uint8Array, Refusal>> {
  try {
    return ok(new Uint8Array(await request.arrayBuffer()));
  } catch (error) {
    // The client went away, or sent less than it announced.
    return err(refusal("body-broken-off", errorFields(error)));
  }
}

/**
 * Reads a body of at most 1 MiB; of a longer one nothing is kept and the rest is discarded.
 *
 * @returns the bytes, none for no body
 */
export async function readBody(
  body: Body,
  limits: Limits = { maxBytes: MAX_BODY_BYTES, timeoutMs: READ_TIMEOUT_MS },
): Promise<Result<Uint8Array, Refusal>> {
  if (body === null) return ok(new Uint8Array(0));
  const chunks: Uint8Array[] = [];
  let length = 0;
  const ended = await readChunks(body, limits.timeoutMs, (chunk) => {
    length += chunk.byteLength;
    if (length <= limits.maxBytes) chunks.push(chunk);
    return length <= limits.maxBytes;
  });
  switch (ended.how) {
    case "done":
      return ok(joined(chunks, length));
    case "stopped":
      ended.reader.releaseLock();
      await discardBody(body);
      return err(refusal("body-too-large"));
    case "late":
      return err(refusal("body-too-slow"));
    case "broken":
      return err(refusal("body-broken-off", errorFields(ended.error)));
  }
}

/** Reads what is left of a body and keeps nothing, up to a cap in bytes and in time; the rest is cancelled. */
export async function discardBody(
  body: Body,
  limits: Limits = { maxBytes: DISCARD_MAX_BYTES, timeoutMs: DISCARD_TIMEOUT_MS },
): Promise<void> {
  if (body === null || body.locked) return;
  let length = 0;
  const ended = await readChunks(body, limits.timeoutMs, (chunk) => {
    length += chunk.byteLength;
    return length <= limits.maxBytes;
  });
  if (ended.how === "stopped") cancel(ended.reader);
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;
type Ended = { how: "done" | "late" } | { how: "broken"; error: unknown } | { how: "stopped"; reader: Reader };

/** Hands every chunk to `take` until it returns false, the body ends, or its time is up. */
async function readChunks(
  stream: ReadableStream<Uint8Array>,
  timeoutMs: number,
  take: (chunk: Uint8Array) => boolean,
): Promise<Ended> {
  const reader = stream.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), timeoutMs);
  });
  try {
    for (;;) {
      const next = await Promise.race([reader.read(), late]);
      if (next === "late") {
        cancel(reader);
        return { how: "late" };
      }
      if (next.done) return { how: "done" };
      if (!take(next.value)) return { how: "stopped", reader };
    }
  } catch (error) {
    // The client went away, or sent less than it announced.
    return { how: "broken", error };
  } finally {
    clearTimeout(timer);
  }
}

function cancel(reader: Reader): void {
  // A stream that is torn already rejects its cancellation, which then says nothing new.
  reader.cancel().catch(() => undefined);
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
