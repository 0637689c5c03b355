/** How messages ended that senders' gates have yet to be notified of. */
import type { AgentDid } from "../../wire/did.ts";
import type { DeliveryOutcome } from "../protocol/transfer.ts";

const REPORT_BATCH_MAX = 500;

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
