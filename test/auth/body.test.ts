import { describe, expect, test, vi } from "vitest";
import { BODY_TIMEOUT_MS, readRequestBody } from "../../src/auth/body.ts";
import { createBodyBudget, MAX_BODY_BYTES } from "../../src/auth/limits/body-budget.ts";
import { discardBody, readBodyWithin } from "../../src/resilience/bounded-body.ts";

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
const readBody = (stream: ReadableStream<Uint8Array> | null, timeoutMs = BODY_TIMEOUT_MS) =>
  readBodyWithin(stream, { maxBytes: MAX_BODY_BYTES, timeoutMs });
const reasonOf = (read: Awaited<ReturnType<typeof readBody>>) => (read.ok ? "read" : read.error.kind);

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
    expect(reasonOf(await readBody(bodyOf([kib(1_024), new Uint8Array(1)]).stream))).toBe("too-large");
  });

  test("that is too long is read to its end and thrown away, so that the client hears the answer", async () => {
    const source = bodyOf(Array.from({ length: 40 }, () => kib(64)));
    expect(reasonOf(await readBody(source.stream))).toBe("too-large");
    expect(source.pulled()).toBe(41);
    expect(source.cancelled()).toBe(false);
  });

  test("that never ends is cancelled at a cap", async () => {
    const source = bodyOf(Array.from({ length: 1_000 }, () => kib(64)));
    expect(reasonOf(await readBody(source.stream))).toBe("too-large");
    expect(source.pulled()).toBeLessThan(300);
    expect(source.cancelled()).toBe(true);
  });

  test("that stops coming is given up after its time", async () => {
    const source = bodyOf([kib(1), null]);
    expect(reasonOf(await readBody(source.stream, 10))).toBe("too-slow");
    expect(source.cancelled()).toBe(true);
  });

  test("that breaks off is refused", async () => {
    expect(reasonOf(await readBody(bodyOf([kib(1), new Error("the client went away")]).stream))).toBe("broken");
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

const from = (budget = createBodyBudget()) => ({ address: "192.0.2.1", budget, now: () => 0 });

/** A request whose head announces `length` bytes, or none, and whose body is the stream. */
function requestOf(stream: ReadableStream<Uint8Array>, length: string | null): Request {
  const headers = new Headers(length === null ? {} : { "Content-Length": length });
  const request = new Request("https://proxy.example/rpc", { method: "POST", body: stream, headers });
  // The platform itself drops a length that is none of its own.
  return length === null ? request : new Proxy(request, { get: (target, name) => readOf(target, name, headers) });
}

function readOf(target: Request, name: string | symbol, headers: Headers): unknown {
  if (name === "headers") return headers;
  const value = Reflect.get(target, name, target) as unknown;
  return typeof value === "function" ? (value as () => unknown).bind(target) : value;
}

describe("the body of a request", () => {
  test.each([
    ["0", "read"],
    ["1048576", "read"],
    ["1048577", "body-too-large"],
    ["99999999999999999999", "body-too-large"],
  ])("of an announced length of %s: %s", async (length, outcome) => {
    const read = await readRequestBody(requestOf(bodyOf([kib(1)]).stream, length), from());
    expect(read.ok ? "read" : read.error.reason).toBe(outcome);
  });

  test.each(["1048576", null])(
    "of an announced length of %s that does not come is given up after 30 s",
    async (length) => {
      vi.useFakeTimers();
      try {
        const budget = createBodyBudget();
        const reading = readRequestBody(requestOf(bodyOf([kib(1_023), null]).stream, length), from(budget));
        await vi.advanceTimersByTimeAsync(29_999);
        expect(budget.heldBytes("192.0.2.1")).toBeGreaterThan(1_000_000);
        await vi.advanceTimersByTimeAsync(1);
        const read = await reading;
        expect(read.ok ? "read" : read.error.reason).toBe("body-too-slow");
        expect(budget.heldBytes()).toBe(0);
      } finally {
        vi.useRealTimers();
      }
    },
  );

  test("of 150 at once from one address holds a fifth of the room, and the others are told to come back", async () => {
    vi.useFakeTimers();
    try {
      const budget = createBodyBudget(50 * MAX_BODY_BYTES);
      const readings = Array.from({ length: 150 }, () =>
        readRequestBody(requestOf(bodyOf([kib(1_023), null]).stream, "1048576"), from(budget)),
      );
      await vi.advanceTimersByTimeAsync(6_000);
      expect(budget.heldBytes()).toBe(10 * MAX_BODY_BYTES);
      await vi.advanceTimersByTimeAsync(24_000);
      const reasons = (await Promise.all(readings)).map((read) => (read.ok ? "read" : read.error.reason));
      expect(reasons.filter((reason) => reason === "body-too-slow")).toHaveLength(10);
      expect(reasons.filter((reason) => reason === "body-no-room")).toHaveLength(140);
    } finally {
      vi.useRealTimers();
    }
  });

  test("keeps its room until that is given back", async () => {
    const budget = createBodyBudget();
    const read = await readRequestBody(requestOf(bodyOf([kib(2)]).stream, null), from(budget));
    expect(budget.heldBytes("192.0.2.1")).toBeGreaterThanOrEqual(2_048);
    if (read.ok) read.value.share.release();
    expect(budget.heldBytes()).toBe(0);
  });
});
