/** Carries a gate's audit entries to D1, until each is there. Never on a request's path. */
import { backoffMs } from "../resilience/backoff.ts";
import { withDeadline } from "../resilience/deadline.ts";
import { errorFields, type Log } from "../telemetry/log.ts";
import { runBatch } from "../database/batch.ts";
import { auditEntryStatements, type AuditOutbox } from "./outbox.ts";

const WRITE_TIMEOUT_MS = 10_000;
const RETRY = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };
/** That D1 has an entry may wait this long for another commit before it is written down here. */
const RECORDED_WITHIN_MS = 500;

/** The way of one gate's audit entries to D1. */
export type AuditReplication = {
  /** Starts the next write where one is due; it goes on by itself. */
  start(nowMs: number): void;
  /** When the next is due (ms since the epoch); null while no entry waits. */
  nextDueMs(): number | null;
};

export type AuditReplicationDeps = {
  outbox: Pick<AuditOutbox, "isEmpty" | "next" | "done">;
  db: D1Database;
  commits: { commit(effect: () => void, withinMs?: number): Promise<void>; wake(): void };
  now: () => number;
  log: Log;
};

/** @returns the replication of one gate's audit; one write at a time. */
export function createAuditReplication({ outbox, db, commits, now, log }: AuditReplicationDeps): AuditReplication {
  let isBusy = false;
  let dueAtMs = 0;
  let failures = 0;

  const write = async (): Promise<void> => {
    const entries = outbox.next();
    isBusy = true;
    try {
      await withDeadline(WRITE_TIMEOUT_MS, () => runBatch(db, auditEntryStatements(entries)));
      failures = 0;
      dueAtMs = 0;
      await commits.commit(() => outbox.done(entries), RECORDED_WITHIN_MS);
    } catch (error) {
      failures += 1;
      dueAtMs = now() + backoffMs(failures, RETRY, Math.random());
      log.error("audit.write_failed", { entries: entries.length, ...errorFields(error) });
    } finally {
      isBusy = false;
      commits.wake();
    }
  };

  return {
    start(nowMs) {
      if (!outbox.isEmpty() && !isBusy && dueAtMs <= nowMs) void write();
    },
    nextDueMs: () => (outbox.isEmpty() || isBusy ? null : dueAtMs),
  };
}
