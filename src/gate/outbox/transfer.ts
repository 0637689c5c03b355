/** The two conversations between gates: handing the outbox over, and reporting what became of what was taken over. Never on a request's path. */
import { auditEntryStatements } from "../../audit/outbox.ts";
import { retryDelayMs } from "../../resilience/backoff.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { type Outcome, type QueuedMessage, REPORT_TICK_MS, type TransferResult } from "../protocol/transfer.ts";
import type { GateState } from "../state.ts";
import type { GroupCommit } from "../storage/group-commit.ts";

/** Another agent's gate, as this conversation sees it. */
export type PeerGate = {
  receive(from: AgentDid, messages: QueuedMessage[]): Promise<TransferResult>;
  settle(outcomes: Outcome[]): Promise<void>;
};

/** What is on disk with the recipient may wait this long for company before it is struck off here. */
const BOOKKEEPING_WITHIN_MS = 500;
const REPORT_RETRY = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };
/** A gate that does not answer within this time is asked again; it tells repeats apart. */
const PEER_TIMEOUT_MS = 10_000;

type Reporting = { busy: boolean; dueAtMs: number; failures: number };

export type Exchange = {
  /** Starts every hand-over and report that is due; they go on by themselves. */
  start(nowMs: number): void;
  /** When the next is due; null when nothing is owed to anyone. */
  nextDueMs(nowMs: number): number | null;
};

export function createExchange(
  stores: GateState,
  commits: GroupCommit,
  deps: { self: AgentDid; db: D1Database; gateStub: (did: AgentDid) => PeerGate; now: () => number; log: Log },
): Exchange {
  const { outbox, queue } = stores;
  const reporting = new Map<AgentDid, Reporting>();

  const handOver = async (to: AgentDid): Promise<void> => {
    const messages = outbox.nextBatch(to);
    if (messages.length === 0) return;
    try {
      const { taken } = await withinTime(deps.gateStub(to).receive(deps.self, messages));
      const gone = outbox.handedOver(to, messages.length, taken, deps.now());
      // What came meanwhile is handed over in the same group.
      const withinMs = Math.max(0, (outbox.nextDueMs() ?? Infinity) - deps.now());
      await commits.commitChecked(
        () => outbox.recordHandedOver(gone, deps.now()),
        Math.min(BOOKKEEPING_WITHIN_MS, withinMs),
      );
    } catch (error) {
      outbox.handOverFailed(to, deps.now());
      deps.log.warn("handover.failed", { to, messages: messages.length, ...errorFields(error) });
      commits.wake();
    }
  };

  const report = async (sender: AgentDid, state: Reporting): Promise<void> => {
    const outcomes = queue.reportsFor(sender);
    state.busy = true;
    try {
      await withinTime(deps.gateStub(sender).settle(outcomes));
      state.failures = 0;
      state.dueAtMs = deps.now() + REPORT_TICK_MS;
      // Free before the next group: what has ended meanwhile is looked at there, and nobody else would.
      state.busy = false;
      await commits.commitChecked(
        () => queue.reported(sender, outcomes),
        queue.isReportUrgent(sender) ? 0 : BOOKKEEPING_WITHIN_MS,
      );
    } catch (error) {
      state.busy = false;
      state.failures += 1;
      state.dueAtMs = deps.now() + retryDelayMs(state.failures, REPORT_RETRY, Math.random());
      deps.log.warn("report.failed", { to: sender, messages: outcomes.length, ...errorFields(error) });
      commits.wake();
    }
  };

  const auditing: Reporting = { busy: false, dueAtMs: 0, failures: 0 };

  const writeAudit = async (): Promise<void> => {
    const entries = stores.audit.next();
    auditing.busy = true;
    try {
      await withinTime(deps.db.batch(auditEntryStatements(deps.db, entries)));
      auditing.failures = 0;
      auditing.dueAtMs = 0;
      await commits.commit(() => stores.audit.done(entries), BOOKKEEPING_WITHIN_MS);
    } catch (error) {
      auditing.failures += 1;
      auditing.dueAtMs = deps.now() + retryDelayMs(auditing.failures, REPORT_RETRY, Math.random());
      deps.log.error("audit.write_failed", { entries: entries.length, ...errorFields(error) });
    } finally {
      auditing.busy = false;
      commits.wake();
    }
  };

  /** Nobody who waits is kept waiting, unless the other gate has failed. */
  const reportDueAtMs = (sender: AgentDid, state: Reporting): number =>
    state.failures === 0 && queue.isReportUrgent(sender) ? 0 : state.dueAtMs;

  return {
    start(nowMs) {
      if (!stores.audit.isEmpty() && !auditing.busy && auditing.dueAtMs <= nowMs) void writeAudit();
      for (const to of outbox.dueLanes(nowMs)) void handOver(to);
      const owed = queue.owedReports();
      for (const sender of owed) {
        let state = reporting.get(sender);
        if (state === undefined) reporting.set(sender, (state = { busy: false, dueAtMs: 0, failures: 0 }));
        if (!state.busy && reportDueAtMs(sender, state) <= nowMs) void report(sender, state);
      }
      if (reporting.size > owed.length) {
        for (const [sender, state] of reporting) {
          if (!state.busy && state.dueAtMs <= nowMs && !owed.includes(sender)) reporting.delete(sender);
        }
      }
    },

    nextDueMs(nowMs) {
      let due = outbox.nextDueMs() ?? Infinity;
      if (!stores.audit.isEmpty() && !auditing.busy) due = Math.min(due, auditing.dueAtMs);
      for (const sender of queue.owedReports()) {
        const state = reporting.get(sender);
        if (state === undefined) return 0;
        // One under way is owed until its answer is on disk here: the process may die in between.
        due = Math.min(due, state.busy ? nowMs + PEER_TIMEOUT_MS : reportDueAtMs(sender, state));
      }
      return due === Infinity ? null : due;
    },
  };
}

async function withinTime<T>(answer: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("the other gate did not answer in time")), PEER_TIMEOUT_MS);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
