/** What a recipient's gate owes to those of its senders: the end of each of their messages, until they have it on disk. */
import type { AgentDid } from "../../wire/did.ts";
import type { DeliveryOutcome } from "../protocol/transfer.ts";

const REPORTED_AT_ONCE = 500;

export type Reports = ReturnType<typeof createReports>;

export function createReports(sql: SqlStorage) {
  const owed = new Map<string, DeliveryOutcome[]>();
  /** Those of whose senders somebody waits for one of them. */
  const urgent = new Set<string>();

  return {
    owe(lane: string, outcome: DeliveryOutcome, isAwaited = false): void {
      if (isAwaited) urgent.add(lane);
      const list = owed.get(lane);
      if (list === undefined) owed.set(lane, [outcome]);
      else list.push(outcome);
    },

    /** Senders whose gates are owed a report. */
    senders: (): AgentDid[] => [...owed.keys()] as AgentDid[],

    isUrgent: (sender: AgentDid): boolean => urgent.has(sender),

    /** What is owed to one of them, a batch of the oldest; what is owed from now on is urgent anew. */
    take(sender: AgentDid): DeliveryOutcome[] {
      urgent.delete(sender);
      return (owed.get(sender) ?? []).slice(0, REPORTED_AT_ONCE);
    },

    /**
     * The sender's gate has them on disk.
     *
     * @param waitsAgain whether a message was replayed meanwhile and has yet to end anew
     */
    done(sender: AgentDid, outcomes: readonly DeliveryOutcome[], waitsAgain: (deliveryId: string) => boolean): void {
      const told = new Set(outcomes);
      const rest = (owed.get(sender) ?? []).filter((outcome) => !told.has(outcome));
      // What was replayed meanwhile may also have ended anew, and is owed once more.
      const again = new Set(rest.map(({ deliveryId }) => deliveryId));
      const ids = outcomes
        .map(({ deliveryId }) => deliveryId)
        .filter((deliveryId) => !waitsAgain(deliveryId) && !again.has(deliveryId));
      sql.exec(
        "UPDATE queue SET reported = 1 WHERE delivery_id IN (SELECT value FROM json_each(?))",
        JSON.stringify(ids),
      );
      if (rest.length === 0) owed.delete(sender);
      else owed.set(sender, rest);
    },
  };
}
