import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { BodyTooLarge, readBody } from "../../src/resilience/bounded-body.ts";
import {
  DeadlineExceeded,
  lookUntil,
  settledBefore,
  startDeadline,
  withDeadline,
} from "../../src/resilience/deadline.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const never = (): Promise<never> => new Promise(() => undefined);

/** A body that gives one chunk each time it is asked and remembers why it was cancelled. */
function chunkedBody(chunks: Uint8Array[], { everyMs = 0, endless = false } = {}) {
  const seen: { cancelled: unknown; pulled: number } = { cancelled: null, pulled: 0 };
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (everyMs > 0) await new Promise((resolve) => setTimeout(resolve, everyMs));
        const chunk = chunks[seen.pulled];
        seen.pulled += 1;
        if (chunk !== undefined) controller.enqueue(chunk);
        else if (endless) controller.enqueue(new Uint8Array(1));
        else controller.close();
      },
      cancel(reason) {
        seen.cancelled = reason;
      },
    },
    { highWaterMark: 0 },
  );
  return { body, seen };
}

const idle = new AbortController().signal;

describe("a deadline", () => {
  test("ends work that hangs, and aborts its signal", async () => {
    let signal: AbortSignal | null = null;
    const work = withDeadline(5_000, (given) => {
      signal = given;
      return never();
    });
    const outcome = expect(work).rejects.toBeInstanceOf(DeadlineExceeded);
    await vi.advanceTimersByTimeAsync(4_999);
    expect(signal!.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    await outcome;
    expect(signal!.aborted).toBe(true);
  });

  test("spans a body that trickles: a byte a second does not keep a call alive", async () => {
    const { body, seen } = chunkedBody([], { everyMs: 1_000, endless: true });
    const work = withDeadline(5_000, (signal) => readBody(body, 1_000_000, signal));
    const outcome = expect(work).rejects.toBeInstanceOf(DeadlineExceeded);
    await vi.advanceTimersByTimeAsync(5_000);
    await outcome;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(seen.cancelled).toBeInstanceOf(DeadlineExceeded);
  });

  test("leaves no timer behind when the work ends first", async () => {
    await expect(withDeadline(5_000, async () => 7)).resolves.toBe(7);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("of a whole request starts its timer only when somebody waits", async () => {
    const deadline = startDeadline(5_000, Date.now);
    expect(vi.getTimerCount()).toBe(0);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(deadline.remainingMs()).toBe(3_000);
    const { signal } = deadline;
    await vi.advanceTimersByTimeAsync(2_999);
    expect(signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(signal.aborted).toBe(true);
    deadline.end();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("a bounded body", () => {
  test("is read to its end up to the very byte", async () => {
    const { body } = chunkedBody([new Uint8Array([1, 2]), new Uint8Array([3])]);
    expect(await readBody(body, 3, idle)).toEqual(new Uint8Array([1, 2, 3]));
  });

  test("is cancelled at the first byte too many", async () => {
    const { body, seen } = chunkedBody([new Uint8Array(3), new Uint8Array(1), new Uint8Array(1)]);
    await expect(readBody(body, 3, idle)).rejects.toBeInstanceOf(BodyTooLarge);
    expect(seen.cancelled).toBeInstanceOf(BodyTooLarge);
    expect(seen.pulled).toBe(2);
  });

  test("is not read at all when the signal has aborted before", async () => {
    const { body, seen } = chunkedBody([new Uint8Array(1)]);
    await expect(readBody(body, 3, AbortSignal.abort(new DeadlineExceeded(1)))).rejects.toBeInstanceOf(
      DeadlineExceeded,
    );
    expect(seen.pulled).toBe(0);
  });

  test("may be missing", async () => {
    expect(await readBody(null, 3, idle)).toEqual(new Uint8Array(0));
  });
});

describe("waiting", () => {
  test("for work ends when the signal aborts, and the work goes on", async () => {
    const controller = new AbortController();
    let isDone = false;
    const work = new Promise<void>((resolve) => setTimeout(resolve, 100)).then(() => (isDone = true));
    const outcome = settledBefore(work, controller.signal);
    controller.abort();
    expect(await outcome).toBeNull();
    await vi.advanceTimersByTimeAsync(100);
    expect(isDone).toBe(true);
  });

  test("for what another request may bring ends when it comes", async () => {
    let isThere = false;
    const outcome = lookUntil(() => isThere, 1_000, idle);
    await vi.advanceTimersByTimeAsync(200);
    isThere = true;
    await vi.advanceTimersByTimeAsync(160);
    expect(await outcome).toBe(true);
  });

  test("for what never comes ends with one's patience", async () => {
    const outcome = lookUntil(() => false, 1_000, idle);
    await vi.advanceTimersByTimeAsync(1_200);
    expect(await outcome).toBe(false);
    expect(vi.getTimerCount()).toBe(0);
  });
});
