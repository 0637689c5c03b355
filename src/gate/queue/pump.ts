/** Puts what is due on its way to the sockets: a message of each sender in turn, within the bounds in messages and in bytes. */
import type { AgentDid } from "../../wire/did.ts";
import type { Envelope, QueuedMessage } from "../protocol/transfer.ts";
import type { Attempts } from "./attempts.ts";
import {
  chooseSocket,
  GATE_BYTES_WINDOW,
  nextOfSender,
  PUMP_BYTES_MAX,
  type QueueEntry,
  type RelaySocket,
  type SocketLoad,
} from "./dispatch.ts";
import type { QueueRows } from "./rows.ts";
import type { SenderQueues } from "./senders.ts";

/** One message for one socket; `body` is JSON text. */
export type Push = { socketId: string; deliveryId: string; envelope: Envelope; body: string };

/** What puts messages on their way. */
export type Pump = {
  /** A message has just come: what is pushed in the same group need not be read back. */
  came(entry: QueueEntry, message: QueuedMessage): void;
  /**
   * Chooses what goes to which socket now, and counts the attempts.
   *
   * @param sockets asked for only when a message could go: there may be hundreds, and most commits bring none
   * @param limit how many at most
   */
  next(sockets: () => readonly RelaySocket[], nowMs: number, limit?: number): Push[];
  /** Whether a message could go now, were there a socket for it. */
  couldGo(nowMs: number): boolean;
  /** Whether the last turn ended at its bound, so that another one has to follow. */
  hasMore(): boolean;
};

export type PumpDeps = {
  senders: SenderQueues;
  attempts: Attempts;
  rows: Pick<QueueRows, "content">;
  admits: (sender: AgentDid, judged: Envelope) => boolean;
  /** Ends a message whose trust has been removed meanwhile. */
  refused: (entry: QueueEntry, nowMs: number) => void;
};

/** @returns the pump of one queue. */
export function createPump({ senders, attempts, rows, admits, refused }: PumpDeps): Pump {
  const fresh = new Map<QueueEntry, QueuedMessage>();
  let freshBytes = 0;
  let isCut = false;

  const couldGo = (nowMs: number): boolean => {
    for (const { entries } of senders.each()) if (nextOfSender(entries, nowMs) !== null) return true;
    return false;
  };

  return {
    came(entry, message) {
      if (freshBytes + message.bytes > PUMP_BYTES_MAX) return;
      fresh.set(entry, message);
      freshBytes += message.bytes;
    },

    couldGo,

    next(sockets, nowMs, limit = Infinity) {
      const came = new Map(fresh);
      fresh.clear();
      freshBytes = 0;
      isCut = false;
      const loads = couldGo(nowMs) ? attempts.loads(sockets()) : [];
      const bounds = boundsOf(loads);
      const pushes: Push[] = [];
      for (let progress = loads.length > 0; progress && !isCut && pushes.length < limit;) {
        progress = false;
        for (const { entries } of senders.each()) {
          const entry = nextOfSender(entries, nowMs);
          const socket = entry === null ? null : chooseSocket(entries, loads, entry.bytes);
          if (entry === null || socket === null) continue;
          if (bounds.inFlight > 0 && bounds.inFlight + entry.bytes > GATE_BYTES_WINDOW) continue;
          isCut = pushes.length > 0 && bounds.pushed + entry.bytes > PUMP_BYTES_MAX;
          if (isCut || pushes.length >= limit) break;
          progress = true;
          const { envelope: text, body } = came.get(entry) ?? rows.content(entry.deliveryId);
          const envelope = JSON.parse(text) as Envelope;
          // Trust may have been removed while this was on its way to a socket that did not take it.
          if (!admits(entry.sender as AgentDid, envelope)) {
            refused(entry, nowMs);
            continue;
          }
          entry.isAwaited = envelope.isAwaited === true;
          attempts.push(entry, socket, nowMs);
          socket.inFlight += 1;
          socket.inFlightBytes += entry.bytes;
          bounds.pushed += entry.bytes;
          bounds.inFlight += entry.bytes;
          pushes.push({ socketId: socket.socketId, deliveryId: entry.deliveryId, envelope, body });
        }
      }
      for (const queue of senders.each()) attempts.release(queue, nowMs);
      return pushes;
    },

    hasMore: () => isCut,
  };
}

/** What one turn has sent, and what is on its way to all sockets: bytes. */
function boundsOf(loads: readonly SocketLoad[]): { pushed: number; inFlight: number } {
  return { pushed: 0, inFlight: loads.reduce((sum, { inFlightBytes }) => sum + inFlightBytes, 0) };
}
