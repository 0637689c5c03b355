/** How messages ended that senders' gates have yet to be notified of, and the reports to these. Never on a request's path. */
import { backoffMs } from "../../resilience/backoff.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { createPeerCalls, PEER_RETRY, PEER_TIMEOUT_MS, type PeerGate } from "../protocol/peer.ts";
import { type DeliveryOutcome, REPORT_TICK_MS } from "../protocol/transfer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";

const REPORT_BATCH_MAX = 500;
/** That a sender's gate has a report may wait this long for another commit before it is written down here. */
const RECORDED_WITHIN_MS = 500;

/** The outcomes of one gate, by sender. Memory alone; the rows say what is pending after a crash. */
export type PendingOutcomes = {
  add(sender: string, outcome: DeliveryOutcome, isAwaited?: boolean): void;
  /** Senders whose gates have a report to come. */
  senders(): AgentDid[];
  /** Whether a request waits for one of a sender's. */
  isUrgent(sender: AgentDid): boolean;
  /** What is pending for one of them, at most 500 of the oldest; what is added from now on is urgent anew. */
  take(sender: AgentDid): DeliveryOutcome[];
  /**
   * The sender's gate has them on disk.
   *
   * @returns those of them that nothing has followed
   */
  done(sender: AgentDid, outcomes: readonly DeliveryOutcome[]): DeliveryOutcome[];
};

/** @returns no outcomes. */
export function createPendingOutcomes(): PendingOutcomes {
  const pending = new Map<string, DeliveryOutcome[]>();
  const urgent = new Set<string>();

  return {
    add(sender, outcome, isAwaited = false) {
      if (isAwaited) urgent.add(sender);
      const list = pending.get(sender);
      if (list === undefined) pending.set(sender, [outcome]);
      else list.push(outcome);
    },
    senders: () => [...pending.keys()] as AgentDid[],
    isUrgent: (sender) => urgent.has(sender),
    take(sender) {
      urgent.delete(sender);
      return (pending.get(sender) ?? []).slice(0, REPORT_BATCH_MAX);
    },
    done(sender, outcomes) {
      const notified = new Set(outcomes);
      const rest = (pending.get(sender) ?? []).filter((outcome) => !notified.has(outcome));
      if (rest.length === 0) pending.delete(sender);
      else pending.set(sender, rest);
      // What was replayed meanwhile may have ended anew, and is pending once more.
      const again = new Set(rest.map(({ deliveryId }) => deliveryId));
      return outcomes.filter(({ deliveryId }) => !again.has(deliveryId));
    },
  };
}

type Progress = { isBusy: boolean; dueAtMs: number; failures: number };

/** The reports of one recipient's gate. */
export type Reporting = {
  /** Starts every report that is due; they go on by themselves. */
  start(nowMs: number): void;
  /** When the next is due (ms since the epoch); null while none is pending. */
  nextDueMs(nowMs: number): number | null;
};

export type ReportingDeps = {
  queue: {
    pendingReports(): AgentDid[];
    reportsFor(sender: AgentDid): DeliveryOutcome[];
    isReportUrgent(sender: AgentDid): boolean;
    reported(sender: AgentDid, outcomes: readonly DeliveryOutcome[], nowMs: number): void;
  };
  commits: GroupCommit;
  gateStub: (did: AgentDid) => Pick<PeerGate, "settle">;
  now: () => number;
  log: Log;
};

/** @returns the reporting of one gate; one report at a time goes to each sender's gate. */
export function createReporting({ queue, commits, gateStub, now, log }: ReportingDeps): Reporting {
  const peers = createPeerCalls();
  const bySender = new Map<AgentDid, Progress>();

  const report = async (sender: AgentDid, progress: Progress): Promise<void> => {
    const outcomes = queue.reportsFor(sender);
    progress.isBusy = true;
    try {
      await peers.ask(() => gateStub(sender).settle(outcomes));
      progress.failures = 0;
      progress.dueAtMs = now() + REPORT_TICK_MS;
      // Free before the next group: what has ended meanwhile is looked at there, and nowhere else.
      progress.isBusy = false;
      await commits.commitChecked(
        () => queue.reported(sender, outcomes, now()),
        queue.isReportUrgent(sender) ? 0 : RECORDED_WITHIN_MS,
      );
    } catch (error) {
      progress.isBusy = false;
      progress.failures += 1;
      progress.dueAtMs = now() + backoffMs(progress.failures, PEER_RETRY, Math.random());
      log.warn("report.failed", { to: sender, messages: outcomes.length, ...errorFields(error) });
      commits.wake();
    }
  };

  /** A sender that waits is not kept waiting, unless its gate has failed. */
  const dueAtMs = (sender: AgentDid, progress: Progress): number =>
    progress.failures === 0 && queue.isReportUrgent(sender) ? 0 : progress.dueAtMs;

  return {
    start(nowMs) {
      const pending = queue.pendingReports();
      for (const sender of pending) {
        let progress = bySender.get(sender);
        if (progress === undefined) bySender.set(sender, (progress = { isBusy: false, dueAtMs: 0, failures: 0 }));
        if (!progress.isBusy && dueAtMs(sender, progress) <= nowMs) void report(sender, progress);
      }
      if (bySender.size <= pending.length) return;
      for (const [sender, progress] of bySender) {
        if (!progress.isBusy && progress.dueAtMs <= nowMs && !pending.includes(sender)) bySender.delete(sender);
      }
    },

    nextDueMs(nowMs) {
      let due = Infinity;
      for (const sender of queue.pendingReports()) {
        const progress = bySender.get(sender);
        if (progress === undefined) return 0;
        // One in progress is pending until its answer is on disk here: the process may die in between.
        due = Math.min(due, progress.isBusy ? nowMs + PEER_TIMEOUT_MS : dueAtMs(sender, progress));
      }
      return due === Infinity ? null : due;
    },
  };
}
