/** What goes out over the sockets by itself: messages to this agent, and receipts for those that it sent. Contract §4. */
import type { Holder } from "../../authority/holder.ts";
import type { AgentDid } from "../../wire/did.ts";
import { frameHead, heartbeatFrame } from "../../wire/frame-encoder.ts";
import type { Outbox, Receipt } from "../outbox/outbox.ts";
import type { RelaySocket } from "../queue/dispatch.ts";
import type { Queue } from "../queue/queue.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Connections } from "./connection.ts";
import { deliverText, receiptText } from "./dialect.ts";
import type { Session, Sockets } from "./sockets.ts";

/** That a sender has its receipts may wait this long for another commit before it is written down. */
const CONFIRMED_WITHIN_MS = 250;
/** Batches of receipts that may be unconfirmed at once; what is beyond comes again at the next connection. */
const UNCONFIRMED_BATCHES_MAX = 64;

export type Deliveries = {
  /** Chooses and sends what is due; its writes are part of the caller's commit, and the output gate holds the frames until then. */
  push(nowMs: number): void;
  /**
   * Sends receipts over one socket, or over whichever of the sender's takes deliveries. Those of dead letters stay due until
   * the client has confirmed them: by its answer to the heartbeat that follows them, or by a `deliver_ack` of the receipt.
   */
  sendReceipts(receipts: readonly Receipt[], over?: Session): void;
  /** Takes the answer to a heartbeat of this side. */
  heartbeatAnswered(session: Session, ackId: string): void;
  /** Takes an acknowledgement, which may be that of a receipt. */
  receiptAcknowledged(session: Session, ackId: string): void;
};

export type DeliveriesDeps = {
  self: AgentDid;
  sockets: Pick<Sockets, "byId">;
  connections: Pick<Connections, "send" | "listening">;
  queue: Pick<Queue, "pump" | "acknowledge">;
  outbox: Pick<Outbox, "receiptsConfirmed">;
  commits: Pick<GroupCommit, "commit">;
  /** A message has been sent to a holder. */
  onPushed: (holder: Holder) => void;
  now: () => number;
};

/** @returns the outgoing side of one gate's relay. */
export function createDeliveries(deps: DeliveriesDeps): Deliveries {
  const { self, sockets, connections, queue, outbox, commits, onPushed, now } = deps;
  /** Receipts of dead letters that were sent, by the heartbeat that followed them. */
  const unconfirmed = new Map<string, { socketId: string; ids: Set<string> }>();
  const takers = (): readonly RelaySocket[] => connections.listening();

  const confirmed = (deliveryIds: readonly string[]): void => {
    void commits.commit(() => outbox.receiptsConfirmed(deliveryIds), CONFIRMED_WITHIN_MS);
  };

  /** What a client answers to this has arrived after everything that was sent to it before. */
  const askWhetherReceived = (session: Session, ids: readonly string[]): void => {
    const head = frameHead(now());
    if (!connections.send(session, heartbeatFrame(head))) return;
    unconfirmed.set(head.id, { socketId: session.socketId, ids: new Set(ids) });
    for (const oldest of unconfirmed.keys()) {
      if (unconfirmed.size <= UNCONFIRMED_BATCHES_MAX) return;
      unconfirmed.delete(oldest);
    }
  };

  /** What a client has no form for is as good as acknowledged: nobody would ever take it there. */
  const passOver = ({ holder, socketId }: Session, deliveryId: string, nowMs: number): void => {
    queue.acknowledge([{ deliveryId, holder, socketId, accepted: true, reason: null }], nowMs);
  };

  /** @returns `none` where a client of its dialect has no form for it */
  const sendReceipt = (session: Session, receipt: Receipt): "sent" | "none" | "gone" => {
    const text = receiptText(receipt, session.dialect, now());
    if (text === null) return "none";
    return connections.send(session, text) ? "sent" : "gone";
  };

  return {
    push(nowMs) {
      for (const push of queue.pump(takers, nowMs)) {
        const session = sockets.byId(push.socketId);
        if (session === null) continue;
        const text = deliverText(self, push, session.dialect, nowMs);
        if (text === null) passOver(session, push.deliveryId, nowMs);
        else if (connections.send(session, text)) onPushed(session.holder);
      }
    },

    sendReceipts(receipts, over) {
      if (receipts.length === 0) return;
      const open = over === undefined ? connections.listening() : [over];
      const sent: string[] = [];
      for (const receipt of receipts) {
        // A socket that has just gone leaves it to the next.
        let outcome: ReturnType<typeof sendReceipt> = "gone";
        while (open[0] !== undefined && (outcome = sendReceipt(open[0], receipt)) === "gone") open.shift();
        if (open[0] === undefined) return;
        if (outcome === "sent" && receipt.status !== "delivered") sent.push(receipt.deliveryId);
      }
      if (open[0] !== undefined && sent.length > 0) askWhetherReceived(open[0], sent);
    },

    heartbeatAnswered({ socketId }, ackId) {
      const batch = unconfirmed.get(ackId);
      if (batch === undefined || batch.socketId !== socketId) return;
      unconfirmed.delete(ackId);
      if (batch.ids.size > 0) confirmed([...batch.ids]);
    },

    receiptAcknowledged({ socketId }, ackId) {
      for (const batch of unconfirmed.values()) {
        if (batch.socketId === socketId && batch.ids.delete(ackId)) confirmed([ackId]);
      }
    },
  };
}
