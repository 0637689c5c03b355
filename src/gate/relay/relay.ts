/** The relay of one gate: what its sockets say, and what is said to them. Contract §4. */
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { frameHead, heartbeatAckFrame } from "../../wire/frame-encoder.ts";
import { type ClientFrame, parseClientFrame } from "../../wire/frames.ts";
import { ProxyError } from "../../wire/problem.ts";
import { RELAY_CLOSE } from "../../wire/relay-close.ts";
import type { PeerFences } from "../admission/peer-fences.ts";
import type { Rate } from "../admission/rate-limit.ts";
import type { Outbox, Receipt } from "../outbox/outbox.ts";
import type { Queue } from "../queue/queue.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import { createAcknowledgements } from "./acknowledgements.ts";
import { createConnections } from "./connection.ts";
import { createDeliveries } from "./deliveries.ts";
import { createEnqueue, type TrustEpoch } from "./enqueue.ts";
import { createRequests, type RequestHandler } from "./requests.ts";
import type { Session, Sockets } from "./sockets.ts";

export type Relay = {
  /** Takes one message of a client. What comes after the end of its authority is not read. */
  message(session: Session, message: string | ArrayBuffer): void;
  /** Records that a socket's peer has gone. */
  gone(session: Session): void;
  /** Chooses and sends what is due. Part of the caller's commit. */
  push(nowMs: number): void;
  /** Sends receipts to the sender. Part of the caller's commit. */
  sendReceipts(receipts: readonly Receipt[]): void;
  /** Sends an event to the sockets that may manage this agent's devices. */
  broadcast(name: string, payload: Record<string, unknown>): void;
  /** Closes older sockets of the agent's own credential. */
  supersede(older: readonly Session[]): void;
  /** Closes the sockets that may not stay. */
  sweep(nowMs: number): void;
  /** When the first socket ends by time (ms since the epoch); null when none does. */
  nextDueMs(): number | null;
  /** Says who runs `req` frames; set once, while the gate is put together. */
  onRequest(handler: RequestHandler): void;
};

export type RelayDeps = {
  self: AgentDid;
  sockets: Sockets;
  queue: Queue;
  outbox: Outbox;
  fences: PeerFences;
  rate: Rate;
  commits: GroupCommit;
  /** Why something that began under an authority may not continue at this moment, or null. */
  endReason: (ref: AuthorityRef) => string | null;
  trustEpoch: TrustEpoch;
  now: () => number;
  log: Log;
};

/** @returns the relay of one gate. */
export function createRelay(deps: RelayDeps): Relay {
  const { rate, endReason, now } = deps;
  const countFrame = ({ holder }: Session, ends = false): ProxyError | null => {
    const waitMs = rate.waitMs({ holder, endsAuthority: ends }, now());
    if (waitMs > 0)
      return new ProxyError("OVERLOADED", { detail: "Slow down and try again later.", retryAfterMs: waitMs });
    rate.count({ holder, endsAuthority: ends }, now());
    return null;
  };
  const connections = createConnections(deps);
  const acknowledgements = createAcknowledgements(deps);
  const enqueue = createEnqueue({ ...deps, connections, countFrame });
  const requests = createRequests({ connections, countFrame });
  const deliveries = createDeliveries({ ...deps, connections });

  const receive = (session: Session, frame: ClientFrame): void => {
    switch (frame.type) {
      case "heartbeat":
        connections.send(session, heartbeatAckFrame(frameHead(now()), frame.id));
        return;
      case "heartbeat_ack":
        return;
      case "deliver_ack":
        if (session.scopes.includes("relay")) acknowledgements.take(session, frame);
        else connections.event(session, "error", { code: "PROXY_AUTH_FORBIDDEN", frameId: frame.id });
        return;
      case "enqueue":
        connections.inTurn(
          session,
          () => enqueue.refuse(session, frame.id, "OVERLOADED"),
          () => enqueue.run(session, frame),
        );
        return;
      case "req":
        connections.inTurn(
          session,
          () => requests.refuse(session, frame.id, new ProxyError("OVERLOADED")),
          () => requests.run(session, frame),
        );
        return;
    }
  };

  return {
    message(session, message) {
      if (endReason(session.authority) !== null) {
        if (!connections.isBusy(session)) connections.isCurrent(session);
        return;
      }
      if (typeof message !== "string") {
        connections.malformed(session, { reason: "binary", detail: "frames are text", frameId: null });
        return;
      }
      const frame = parseClientFrame(message);
      if (frame.ok) receive(session, frame.value);
      else if (frame.error.reason === "too_large") connections.close(session, RELAY_CLOSE.tooLarge, "frame too large");
      else connections.malformed(session, frame.error);
    },
    gone: connections.gone,
    push: deliveries.push,
    sendReceipts: deliveries.sendReceipts,
    broadcast: connections.broadcast,
    supersede: connections.supersede,
    sweep: connections.sweep,
    nextDueMs: connections.nextDueMs,
    onRequest: requests.onRequest,
  };
}
