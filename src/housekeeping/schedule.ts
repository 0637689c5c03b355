/** When a job of housekeeping is due: at its own interval once it is done, sooner while it is not. */
import { backoffMs } from "../resilience/backoff.ts";

/** How often housekeeping looks. What a request left pending is never older than this and a little. */
export const ROUND_MS = 15_000;
/** A job that goes on failing is tried this often, or at its own interval where that is shorter. */
const RETRY = { initialMs: ROUND_MS, maxMs: 300_000, jitterRatio: 0 } as const;

/** `more`: done as far as one round goes. */
export type JobOutcome = "done" | "more" | "failed";

/** What is kept of a job's last turn. */
export type Turn = {
  /** When its round began. */
  readonly atMs: number;
  /** Turns in a row that failed, this one included. */
  readonly failures: number;
  readonly more: boolean;
};

/** @param last undefined where there was none */
export function isDue(last: Turn | undefined, everyMs: number, nowMs: number): boolean {
  return last === undefined || nowMs - last.atMs >= Math.min(everyMs, waitMs(last, everyMs));
}

/** In the next round after the first failure, then at growing intervals. */
function waitMs({ failures, more }: Turn, everyMs: number): number {
  if (more) return 0;
  if (failures === 0) return everyMs;
  return failures === 1 ? 0 : backoffMs(failures - 1, RETRY, 0);
}

/** A turn counts as failed until it has ended otherwise: one that takes the object down is not tried in every round. */
export function turnBegun(last: Turn | undefined, nowMs: number): Turn {
  return { atMs: nowMs, failures: (last?.failures ?? 0) + 1, more: false };
}

/** @returns the schedule after a turn that has ended */
export function turnEnded(begun: Turn, outcome: JobOutcome): Turn {
  return outcome === "failed" ? begun : { atMs: begun.atMs, failures: 0, more: outcome === "more" };
}
