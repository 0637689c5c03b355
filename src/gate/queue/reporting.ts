/** Reports to the senders' gates what became of their messages, until each has it on disk. Never on a request's path. */
import { backoffMs } from "../../resilience/backoff.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { askPeer, PEER_RETRY, PEER_TIMEOUT_MS, type PeerGate } from "../protocol/peer.ts";
import { REPORT_TICK_MS } from "../protocol/transfer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Queue } from "./queue.ts";

/** That a sender's gate has a report may wait this long for another commit before it is written down here. */
const RECORDED_WITHIN_MS = 500;

type Progress = { isBusy: boolean; dueAtMs: number; failures: number };

/** The reports of one recipient's gate. */
export type Reporting = {
  /** Starts every report that is due; they go on by themselves. */
  start(nowMs: number): void;
  /** When the next is due (ms since the epoch); null while none is pending. */
  nextDueMs(nowMs: number): number | null;
};

export type ReportingDeps = {
  queue: Pick<Queue, "pendingReports" | "reportsFor" | "isReportUrgent" | "reported">;
  commits: GroupCommit;
  gateStub: (did: AgentDid) => Pick<PeerGate, "settle">;
  now: () => number;
  log: Log;
};

/** @returns the reporting of one gate; one report at a time goes to each sender's gate. */
export function createReporting({ queue, commits, gateStub, now, log }: ReportingDeps): Reporting {
  const bySender = new Map<AgentDid, Progress>();

  const report = async (sender: AgentDid, progress: Progress): Promise<void> => {
    const outcomes = queue.reportsFor(sender);
    progress.isBusy = true;
    try {
      await askPeer(() => gateStub(sender).settle(outcomes));
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
