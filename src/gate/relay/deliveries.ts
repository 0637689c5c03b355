/** What goes out over the sockets by itself: messages to this agent, and receipts for those that it sent. Contract §4. */
import type { Holder } from "../../authority/holder.ts";
import type { AgentDid } from "../../wire/did.ts";
import { deliverFrame, frameHead, receiptFrame } from "../../wire/frame-encoder.ts";
import type { Outbox, Receipt } from "../outbox/outbox.ts";
import type { RelaySocket } from "../queue/dispatch.ts";
import type { Push, Queue } from "../queue/queue.ts";
import type { Connections } from "./connection.ts";
import type { Sockets } from "./sockets.ts";

export type Deliveries = {
  /** Chooses and sends what is due; its writes are part of the caller's commit, and the output gate holds the frames until then. */
  push(nowMs: number): void;
  /** Sends receipts over whichever of the sender's sockets takes deliveries. Part of the caller's commit. */
  sendReceipts(receipts: readonly Receipt[]): void;
};

export type DeliveriesDeps = {
  self: AgentDid;
  sockets: Pick<Sockets, "byId">;
  connections: Pick<Connections, "send" | "listening">;
  queue: Pick<Queue, "pump">;
  outbox: Pick<Outbox, "receiptTold">;
  /** A message has been sent to a holder. */
  onPushed: (holder: Holder) => void;
  now: () => number;
};

/** @returns the outgoing side of one gate's relay. */
export function createDeliveries({
  self,
  sockets,
  connections,
  queue,
  outbox,
  onPushed,
  now,
}: DeliveriesDeps): Deliveries {
  const takers = (): readonly RelaySocket[] => connections.listening();

  return {
    push(nowMs) {
      for (const push of queue.pump(takers, nowMs)) {
        const session = sockets.byId(push.socketId);
        if (session !== null && connections.send(session, deliverText(self, push, nowMs))) onPushed(session.holder);
      }
    },

    sendReceipts(receipts) {
      const open = receipts.length === 0 ? [] : connections.listening();
      for (const receipt of receipts) {
        const text = receiptText(receipt, now());
        // A socket that has just gone leaves it to the next.
        while (open[0] !== undefined && !connections.send(open[0], text)) open.shift();
        if (open.length === 0) return;
        if (!receipt.delivered) outbox.receiptTold(receipt.deliveryId);
      }
    },
  };
}

function deliverText(self: AgentDid, push: Push, nowMs: number): string {
  const { trustEpoch: _trustEpoch, isAwaited: _isAwaited, ...members } = push.envelope;
  // The frame's id is the delivery's: an acknowledgement that arrives after the gate has slept finds its row by it.
  const head = { ...frameHead(nowMs), id: push.deliveryId as ReturnType<typeof frameHead>["id"] };
  return deliverFrame(head, { deliveryId: push.deliveryId, toAgentDid: self, ...members, payloadText: push.body });
}

function receiptText({ originFrameId, deliveryId, toAgentDid, delivered, reason }: Receipt, nowMs: number): string {
  return receiptFrame(frameHead(nowMs), {
    // A message that came by HTTP has no frame of its own: the frame that delivered it has the delivery's id.
    originalFrameId: originFrameId ?? deliveryId,
    deliveryId,
    toAgentDid,
    status: delivered ? "delivered_to_webhook" : "dead_lettered",
    ...(reason === null ? {} : { reason }),
  });
}
