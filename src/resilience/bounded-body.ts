/** Reading a body within a bound of bytes and time. */

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

/**
 * Reads a body to its end, but no more than `maxBytes`; a longer one is cancelled at once, so that it costs neither
 * memory nor a connection.
 *
 * @param signal cancels the body when it aborts
 * @throws BodyTooLarge, the signal's reason, or the error of the stream
 */
export async function readBody(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (body === null) return new Uint8Array(0);
  const reader = body.getReader();
  let cancelled: Promise<void> | undefined;
  const cancel = (reason: unknown): void => {
    // A stream that is torn already has nothing to cancel, and the reason is thrown below in any case.
    cancelled ??= reader.cancel(reason).catch(() => undefined);
  };
  const onAbort = (): void => cancel(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    const chunks: Uint8Array[] = [];
    let length = 0;
    for (;;) {
      const next = await reader.read();
      signal.throwIfAborted();
      if (next.done) return joined(chunks, length);
      length += next.value.byteLength;
      if (length > maxBytes) throw new BodyTooLarge(maxBytes);
      chunks.push(next.value);
    }
  } catch (error) {
    cancel(error);
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function joined(chunks: Uint8Array[], length: number): Uint8Array {
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
