/** How an authority is ended (contract §5, the revocation guarantee). */
import { DeadlineExceeded, withDeadline } from "../../resilience/deadline.ts";
import { ProxyError } from "../../wire/problem.ts";
import { DRAIN_TIMEOUT_MS } from "./in-flight.ts";

/** Fencing tokens are raised where effects are committed, before the answer; a primary that does not take them is no success. */
export async function raiseAtPrimary(db: D1Database, statements: D1PreparedStatement[]): Promise<void> {
  if (statements.length === 0) return;
  try {
    await db.withSession("first-primary").batch(statements);
  } catch (cause) {
    throw new ProxyError("DRAIN_TIMEOUT", {
      reason: "the fencing token could not be raised",
      retryAfterMs: 1_000,
      cause,
    });
  }
}

/** One time for the whole of an end. What comes later goes on by itself, but nobody is told that it is over. */
export async function withinDrainTime<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await withDeadline(DRAIN_TIMEOUT_MS, work);
  } catch (cause) {
    if (!(cause instanceof DeadlineExceeded)) throw cause;
    throw new ProxyError("DRAIN_TIMEOUT", {
      reason: "the end did not reach D1 and every call in time",
      retryAfterMs: 1_000,
      cause,
    });
  }
}
