/** The work did not end in its time. */
export class DeadlineExceeded extends Error {
  readonly code = "DEADLINE_EXCEEDED";
  readonly timeoutMs: number;

  constructor(timeoutMs: number) {
    super(`not done within ${timeoutMs} ms`);
    this.name = "DeadlineExceeded";
    this.timeoutMs = timeoutMs;
  }
}

/**
 * Runs `work` under one deadline, from its first step to its last: put the reading of a response's body inside it, so
 * that a body that trickles is cut too. The signal aborts at the deadline; work that ignores it is abandoned.
 *
 * @throws DeadlineExceeded at the deadline, or whatever `work` throws
 */
export async function withDeadline<T>(timeoutMs: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const expiry = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const error = new DeadlineExceeded(timeoutMs);
      controller.abort(error);
      reject(error);
    }, timeoutMs);
  });
  try {
    return await Promise.race([work(controller.signal), expiry]);
  } finally {
    clearTimeout(timer);
  }
}

/** What remains of the time that a whole request has. */
export type Deadline = {
  /** Aborts at the deadline. The timer starts at the first use, so a request served from memory needs none. */
  readonly signal: AbortSignal;
  /** Milliseconds left, never negative. */
  remainingMs(): number;
  /** Stops the timer; call it when the request is decided. */
  end(): void;
};

/** One deadline for a chain of steps, beginning now. */
export function startDeadline(timeoutMs: number, now: () => number): Deadline {
  const endsAtMs = now() + timeoutMs;
  let waiting: { timer: ReturnType<typeof setTimeout>; signal: AbortSignal } | null = null;
  const remainingMs = (): number => Math.max(0, endsAtMs - now());
  return {
    get signal() {
      if (waiting === null) {
        const controller = new AbortController();
        const timer = setTimeout(() => controller.abort(new DeadlineExceeded(timeoutMs)), remainingMs());
        waiting = { timer, signal: controller.signal };
      }
      return waiting.signal;
    },
    remainingMs,
    end() {
      if (waiting !== null) clearTimeout(waiting.timer);
    },
  };
}

/**
 * Waits for `work` no longer than until `signal` aborts. The work itself goes on: give it to `waitUntil` as well.
 *
 * @returns the value, or null when the signal came first
 * @throws what `work` throws, when that comes first
 */
export async function settledBefore<T>(work: Promise<T>, signal: AbortSignal): Promise<{ value: T } | null> {
  if (signal.aborted) return null;
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<null>((resolve) => {
    onAbort = () => resolve(null);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work.then((value) => ({ value })), aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
  }
}

const FIRST_LOOK_MS = 5;
const LONGEST_LOOK_MS = 160;

/**
 * Looks for something that another request may bring, at growing intervals on timers of this request's own: a promise
 * of another request must not be awaited.
 *
 * @param isThere asked before every pause and after the last
 * @returns whether it came within `patienceMs` and before `signal` aborted
 */
export async function lookUntil(isThere: () => boolean, patienceMs: number, signal: AbortSignal): Promise<boolean> {
  let waitedMs = 0;
  let lookMs = FIRST_LOOK_MS;
  while (!isThere()) {
    if (waitedMs >= patienceMs || signal.aborted) return false;
    await pause(lookMs, signal);
    waitedMs += lookMs;
    lookMs = Math.min(lookMs * 2, LONGEST_LOOK_MS);
  }
  return true;
}

/** Rests for a while, and wakes early when `signal` aborts. */
async function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const rested = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, delayMs);
  });
  await settledBefore(rested, signal);
  clearTimeout(timer);
}
