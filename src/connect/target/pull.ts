/** Holds messages for a program that fetches them over the local API. */
import type { Delivery, Outcome, Target } from "../message.ts";

/** How long what was fetched is its fetcher's. Without a word by then it counts as put off, so that nothing is held back by it. */
export const HELD_MS = 60_000;

/** A program's word on one message. */
export type PullVerdict = { readonly deliveryId: string; readonly outcome: Outcome };

/** Messages that wait to be fetched. */
export type PullQueue = {
  /** For the messages that come: each waits until a verdict on it. */
  readonly target: Target;
  /**
   * Fetches what nobody holds, the oldest first, each for 60 s.
   *
   * @param waitMs how long to wait where there is nothing
   */
  take(limit: number, waitMs: number, signal: AbortSignal): Promise<Delivery[]>;
  /** @returns whether the message was waiting */
  settle(verdict: PullVerdict): boolean;
  /** Messages that wait, held ones included. */
  depth(): number;
};

type Waiting = {
  readonly message: Delivery;
  heldUntilMs: number;
  timer: ReturnType<typeof setTimeout> | undefined;
  readonly resolve: (outcome: Outcome) => void;
};

/** @param now milliseconds since 1970 */
export function createPullQueue(now: () => number): PullQueue {
  const waiting = new Map<string, Waiting>();
  const fetchers = new Set<() => void>();

  const hold = (each: Waiting, nowMs: number): void => {
    each.heldUntilMs = nowMs + HELD_MS;
    clearTimeout(each.timer);
    const reason = `nothing was said of it within ${HELD_MS / 1_000} s of its being fetched`;
    each.timer = setTimeout(() => each.resolve({ kind: "later", reason }), HELD_MS);
  };

  const takeFree = (limit: number): Delivery[] => {
    const nowMs = now();
    const free = [...waiting.values()].filter(({ heldUntilMs }) => heldUntilMs <= nowMs).slice(0, limit);
    for (const each of free) hold(each, nowMs);
    return free.map(({ message }) => message);
  };

  const untilMore = (waitMs: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        fetchers.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      fetchers.add(done);
      signal.addEventListener("abort", done, { once: true });
    });

  return {
    target: (message, signal) =>
      new Promise((resolve, reject) => {
        const gone = (): void => {
          end();
          reject(signal.reason as Error);
        };
        const settled = (outcome: Outcome): void => {
          signal.removeEventListener("abort", gone);
          end();
          resolve(outcome);
        };
        signal.addEventListener("abort", gone, { once: true });
        const own: Waiting = { message, heldUntilMs: 0, timer: undefined, resolve: settled };
        const end = (): void => {
          clearTimeout(own.timer);
          // A repeat of the message may stand there by now.
          if (waiting.get(message.deliveryId) === own) waiting.delete(message.deliveryId);
        };
        waiting.set(message.deliveryId, own);
        for (const wake of fetchers) wake();
      }),

    async take(limit, waitMs, signal) {
      const first = takeFree(limit);
      if (first.length > 0 || waitMs === 0) return first;
      await untilMore(waitMs, signal);
      return signal.aborted ? [] : takeFree(limit);
    },

    settle({ deliveryId, outcome }) {
      const found = waiting.get(deliveryId);
      found?.resolve(outcome);
      return found !== undefined;
    },
    depth: () => waiting.size,
  };
}
