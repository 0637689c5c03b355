/** Holds messages for a program that fetches them over the local API. */
import type { Delivery, Outcome, Target } from "../message.ts";

/** How long what was fetched is its fetcher's. */
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

type Waiting = { readonly message: Delivery; heldUntilMs: number; readonly resolve: (outcome: Outcome) => void };

/** @param now milliseconds since 1970 */
export function createPullQueue(now: () => number): PullQueue {
  const waiting = new Map<string, Waiting>();
  const fetchers = new Set<() => void>();

  const takeFree = (limit: number): Delivery[] => {
    const nowMs = now();
    const free = [...waiting.values()].filter(({ heldUntilMs }) => heldUntilMs <= nowMs).slice(0, limit);
    for (const each of free) each.heldUntilMs = nowMs + HELD_MS;
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
          waiting.delete(message.deliveryId);
          reject(signal.reason as Error);
        };
        const settled = (outcome: Outcome): void => {
          signal.removeEventListener("abort", gone);
          waiting.delete(message.deliveryId);
          resolve(outcome);
        };
        signal.addEventListener("abort", gone, { once: true });
        waiting.set(message.deliveryId, { message, heldUntilMs: 0, resolve: settled });
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
