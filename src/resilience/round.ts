/**
 * One round of work that must not run for ever: so many calls, so much time, so many at once, and a deadline on each call. What it
 * does not come to is left for the next round.
 */
import { withDeadline } from "./deadline.ts";

export type RoundLimits = {
  /** Calls that the round makes at most. */
  readonly calls: number;
  /** Items that are in progress at once. */
  readonly parallel: number;
  /** After this time (ms) no further item is begun. */
  readonly durationMs: number;
  /** A call that has not answered by then (ms) has failed. */
  readonly callTimeoutMs: number;
};

/**
 * Makes one call within the round.
 *
 * @param target what is called, e.g. a gate: once a call to it has failed it is not called again in this round, so that one that
 *        hangs costs its timeout once for each item in progress, not once for each item
 * @throws DeadlineExceeded, TargetFailed, or what `call` throws
 */
export type Ask = <T>(target: string, call: () => Promise<T>) => Promise<T>;

export type RoundWork<Item> = {
  /** Calls that one item takes at most. */
  readonly callsPerItem: number;
  /** @throws when the item has failed */
  readonly run: (item: Item, ask: Ask) => Promise<void>;
  /** What is done about a failed item. */
  readonly failed: (item: Item, error: unknown) => Promise<void>;
  /** Milliseconds since any moment. */
  readonly now: () => number;
};

/** What became of the items of a round. */
export type RoundReport = { readonly done: number; readonly failed: number; readonly left: number };

/** A target was not called: a call to it has failed earlier in this round. */
export class TargetFailed extends Error {
  override readonly name = "TargetFailed";
}

/**
 * Works through items in their order.
 *
 * @returns how many are done, how many failed, and how many the round did not come to
 * @throws what `failed` throws
 */
export async function runRound<Item>(
  items: readonly Item[],
  limits: RoundLimits,
  { callsPerItem, run, failed: onFailure, now }: RoundWork<Item>,
): Promise<RoundReport> {
  const endsAtMs = now() + limits.durationMs;
  const failedTargets = new Set<string>();
  const report = { done: 0, failed: 0 };
  let next = 0;

  const ask: Ask = async (target, call) => {
    if (failedTargets.has(target)) throw new TargetFailed("a call to it has failed in this round");
    try {
      return await withDeadline(limits.callTimeoutMs, call);
    } catch (error) {
      failedTargets.add(target);
      throw error;
    }
  };

  const worker = async (): Promise<void> => {
    while (next < items.length && (next + 1) * callsPerItem <= limits.calls && now() < endsAtMs) {
      const item = items[next] as Item;
      next += 1;
      try {
        // oxlint-disable-next-line no-await-in-loop -- a worker does one item after the other
        await run(item, ask);
        report.done += 1;
      } catch (error) {
        report.failed += 1;
        // oxlint-disable-next-line no-await-in-loop
        await onFailure(item, error);
      }
    }
  };

  await Promise.all(Array.from({ length: limits.parallel }, worker));
  return { ...report, left: items.length - next };
}
