/** The relay of one gate: what its sockets say, and what is said to them. Contract §4. */
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupFences } from "../admission/group-fences.ts";
import type { AccessValidations } from "../admission/access-validations.ts";
import type { TrustFences } from "../admission/trust-fences.ts";
import type { Rate } from "../admission/rate-limit.ts";
import type { Outbox, Receipt } from "../outbox/outbox.ts";
import type { Queue } from "../queue/queue.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import { createAcknowledgements } from "./acknowledgements.ts";
import { createConnections } from "./connection.ts";
import { createDeliveries } from "./deliveries.ts";
import { createEnqueue, type SendTrust } from "./enqueue.ts";
import { createFrameLimits } from "./frame-limits.ts";
import { createInbound } from "./inbound.ts";
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
  sendReceipts(receipts: readonly Receipt[], over?: Session): void;
  /** Sends an event to the sockets that may manage this agent's devices. */
  broadcast(name: string, payload: Record<string, unknown>): void;
  /** Sends `task.updated` to the sockets that may read tasks. */
  announceTask(payload: Record<string, unknown>): void;
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
  trustFences: TrustFences;
  groupFences: GroupFences;
  rate: Rate;
  commits: GroupCommit;
  /** Why something that began under an authority may not continue at this moment, or null. */
  endReason: (ref: AuthorityRef) => string | null;
  trust: SendTrust;
  /** Knows this agent's name. */
  accessValidations: Pick<AccessValidations, "agentName">;
  now: () => number;
  log: Log;
};

/** @returns the relay of one gate. */
export function createRelay(deps: RelayDeps): Relay {
  const { sockets, queue, rate, now } = deps;
  const limits = createFrameLimits({
    rate,
    now,
    holders: sockets.all().map(({ holder }) => holder),
    inHands(holder) {
      const inFlight = queue.inFlight();
      const own = sockets.all().filter((session) => session.holder === holder);
      return own.reduce((sum, { socketId }) => sum + (inFlight.get(socketId)?.count ?? 0), 0);
    },
  });
  const connections = createConnections(deps);
  const acknowledgements = createAcknowledgements(deps);
  const enqueue = createEnqueue({ ...deps, connections });
  const requests = createRequests({ connections });
  const deliveries = createDeliveries({ ...deps, connections, onPushed: limits.pushed });
  const inbound = createInbound({ ...deps, limits, connections, deliveries, acknowledgements, enqueue, requests });

  return {
    message: inbound.message,
    gone: connections.gone,
    push: deliveries.push,
    sendReceipts: deliveries.sendReceipts,
    broadcast: connections.broadcast,
    announceTask: connections.announceTask,
    supersede: connections.supersede,
    sweep: connections.sweep,
    nextDueMs: connections.nextDueMs,
    onRequest: requests.onRequest,
  };
}
