/** What recipients' gates report of this agent's messages, as the outbox records it. Repeats change nothing. */
import type { DeliveryState, Handling } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { DeliveryOutcome } from "../protocol/transfer.ts";
import type { RecipientQueues } from "./recipients.ts";
import { OUTBOX_STATE, OUTBOX_STATE_NAMES, type OutboxRows, type ReceiptRow } from "./rows.ts";

/** What the sender is notified of over its socket. */
export type Receipt = {
  deliveryId: string;
  toAgentDid: AgentDid;
  originFrameId: string | null;
  status: Exclude<DeliveryState, "queued">;
  reason: string | null;
};

/** The settlement of one outbox. Each is part of the caller's transaction. */
export type Settlement = {
  /** Applies outcomes. @returns what the sender is to be notified of */
  settle(outcomes: readonly DeliveryOutcome[], nowMs: number): Receipt[];
  /**
   * Applies what the recipient's program made of a message.
   *
   * @returns what the sender is to be notified of, `known` where an earlier verdict stands, `none` where it was sent to nobody such
   */
  handle(deliveryId: string, recipient: AgentDid, handling: Handling, nowMs: number): Receipt | "known" | "none";
  /** Applies one. @returns null where it changes nothing that the sender has not been notified of */
  settleOne(outcome: DeliveryOutcome): Receipt | null;
};

export type SettlementDeps = {
  rows: Pick<OutboxRows, "status" | "delivered" | "ended" | "handled" | "waitsAgain">;
  recipients: Pick<RecipientQueues, "forget" | "addWaiting" | "removeWaiting">;
  /** A message has ended. */
  onClosed: (deliveryId: string) => void;
};

/** @returns the settlement of one outbox. */
export function createSettlement({ rows, recipients, onClosed }: SettlementDeps): Settlement {
  /** A message has ended, which was waiting until now or had died before. */
  const close = (deliveryId: string, to: AgentDid, wasOpen: boolean): void => {
    onClosed(deliveryId);
    // A report that overtook the answer to its hand-over: what is held still is read from disk again, and not offered.
    recipients.forget(to, deliveryId);
    if (wasOpen) recipients.removeWaiting(to);
  };

  const settleOne = (outcome: DeliveryOutcome): Receipt | null => {
    const row = rows.status(outcome.deliveryId);
    // What was delivered stays delivered. A dead letter that is replayed waits again, and ends once more.
    if (row === null || (row.state >= OUTBOX_STATE.delivered && row.state !== OUTBOX_STATE.deadLettered)) return null;
    const wasDead = row.state === OUTBOX_STATE.deadLettered;
    if (wasDead && !outcome.delivered && outcome.atMs <= row.updated_at_ms) return null;
    const to = row.to_did as AgentDid;
    if (outcome.waitsAgain === true) {
      if (wasDead) {
        rows.waitsAgain(outcome);
        recipients.addWaiting(to);
      }
      return null;
    }
    rows.ended(outcome);
    close(outcome.deliveryId, to, !wasDead);
    const { deliveryId, delivered, reason } = outcome;
    const status = delivered ? "delivered" : "dead_lettered";
    return { deliveryId, toAgentDid: to, originFrameId: row.origin_frame_id, status, reason };
  };

  return {
    settleOne,

    handle(deliveryId, recipient, handling, nowMs) {
      const row = rows.status(deliveryId);
      if (row === null || row.to_did !== recipient || row.state === OUTBOX_STATE.deadLettered) return "none";
      if (row.state > OUTBOX_STATE.deadLettered) return "known";
      rows.handled(deliveryId, handling, nowMs);
      // The verdict may overtake the report that it was delivered, which then changes nothing.
      if (row.state < OUTBOX_STATE.delivered) close(deliveryId, recipient, true);
      const { outcome: status, reason } = handling;
      return { deliveryId, toAgentDid: recipient, originFrameId: row.origin_frame_id, status, reason };
    },

    settle(outcomes, nowMs) {
      const receipts: Receipt[] = [];
      // What was delivered at its first attempt is one statement.
      const plain = outcomes.filter(
        ({ delivered, attempts, reason }) => delivered && attempts === 1 && reason === null,
      );
      const settled = new Set<string>();
      for (const row of plain.length === 0 ? [] : rows.delivered(idsOf(plain), nowMs)) {
        settled.add(row.delivery_id);
        close(row.delivery_id, row.to_did as AgentDid, true);
        receipts.push(receiptOf(row));
      }
      for (const outcome of outcomes) {
        const receipt = settled.has(outcome.deliveryId) ? null : settleOne(outcome);
        if (receipt !== null) receipts.push(receipt);
      }
      return receipts;
    },
  };
}

function idsOf(outcomes: readonly DeliveryOutcome[]): string[] {
  return outcomes.map(({ deliveryId }) => deliveryId);
}

/** @returns a receipt of a row of what is over. */
export function receiptOf(row: ReceiptRow): Receipt {
  const status = OUTBOX_STATE_NAMES[row.state] ?? "queued";
  if (status === "queued") throw new Error("what is not over has no receipt");
  return {
    deliveryId: row.delivery_id,
    toAgentDid: row.to_did as AgentDid,
    originFrameId: row.origin_frame_id,
    status,
    reason: status === "delivered" ? null : row.reason,
  };
}
