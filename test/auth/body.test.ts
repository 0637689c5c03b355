import { describe, expect, test } from "vitest";
import { checkAnnouncedLength, discardBody, MAX_BODY_BYTES, readBody } from "../../src/auth/body.ts";

type Source = { stream: ReadableStream<Uint8Array>; pulled: () => number; cancelled: () => boolean };

/** A body of so many chunks; `null` in the list never comes, an Error breaks it off. */
function bodyOf(chunks: (Uint8Array | Error | null)[]): Source {
  let pulled = 0;
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const chunk = chunks[pulled];
        pulled += 1;
        if (chunk === undefined) controller.close();
        else if (chunk === null) return new Promise<void>(() => {});
        else if (chunk instanceof Error) controller.error(chunk);
        else controller.enqueue(chunk);
        return undefined;
      },
      cancel() {
        cancelled = true;
      },
    },
    { highWaterMark: 0 },
  );
  return { stream, pulled: () => pulled, cancelled: () => cancelled };
}

const kib = (count: number): Uint8Array => new Uint8Array(count * 1_024).fill(120);
const reasonOf = (read: Awaited<ReturnType<typeof readBody>>) => (read.ok ? "read" : read.error.reason);

describe("a body", () => {
  test("is put together from its chunks", async () => {
    const read = await readBody(bodyOf([new Uint8Array([1, 2]), new Uint8Array([3])]).stream);
    expect(read.ok && [...read.value]).toEqual([1, 2, 3]);
  });

  test("that is not there is empty", async () => {
    const read = await readBody(null);
    expect(read.ok && read.value.byteLength).toBe(0);
  });

  test("of exactly 1 MiB is read, of one byte more is not", async () => {
    expect(reasonOf(await readBody(bodyOf([kib(1_024)]).stream))).toBe("read");
    expect(reasonOf(await readBody(bodyOf([kib(1_024), new Uint8Array(1)]).stream))).toBe("body-too-large");
  });

  test("that is too long is read to its end and thrown away, so that the client hears the answer", async () => {
    const source = bodyOf(Array.from({ length: 40 }, () => kib(64)));
    expect(reasonOf(await readBody(source.stream))).toBe("body-too-large");
    expect(source.pulled()).toBe(41);
    expect(source.cancelled()).toBe(false);
  });

  test("that never ends is cancelled at a cap", async () => {
    const source = bodyOf(Array.from({ length: 1_000 }, () => kib(64)));
    expect(reasonOf(await readBody(source.stream))).toBe("body-too-large");
    expect(source.pulled()).toBeLessThan(300);
    expect(source.cancelled()).toBe(true);
  });

  test("that stops coming is given up after its time", async () => {
    const source = bodyOf([kib(1), null]);
    expect(reasonOf(await readBody(source.stream, { maxBytes: MAX_BODY_BYTES, timeoutMs: 10 }))).toBe("body-too-slow");
    expect(source.cancelled()).toBe(true);
  });

  test("that breaks off is refused", async () => {
    expect(reasonOf(await readBody(bodyOf([kib(1), new Error("the client went away")]).stream))).toBe(
      "body-broken-off",
    );
  });

  test("that was refused is discarded within its own caps, in bytes and in time", async () => {
    const long = bodyOf(Array.from({ length: 1_000 }, () => kib(64)));
    await discardBody(long.stream, { maxBytes: 128 * 1_024, timeoutMs: 1_000 });
    expect([long.pulled(), long.cancelled()]).toEqual([3, true]);
    const slow = bodyOf([null]);
    await discardBody(slow.stream, { maxBytes: 1_024, timeoutMs: 10 });
    expect(slow.cancelled()).toBe(true);
    await discardBody(bodyOf([new Error("gone")]).stream);
    await discardBody(null);
  });
});

test.each([
  [null, true],
  ["0", true],
  ["1048576", true],
  ["1048577", false],
  ["99999999999999999999", false],
])("an announced length of %s", (length, accepted) => {
  const headers = new Headers(length === null ? {} : { "Content-Length": length });
  expect(checkAnnouncedLength(headers).ok).toBe(accepted);
});
