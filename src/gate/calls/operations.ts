/** What a method may do with the gate it runs in. */
import type { AuditedBy, AuditOutbox } from "../../audit/outbox.ts";
import { refusalError } from "../../auth/reasons.ts";
import type { AgentAuthority } from "../../authority/agent.ts";
import type { Devices } from "../../authority/device/devices.ts";
import type { ApiKeys } from "../../authority/ended-api-keys.ts";
import { type Holder, holderOf } from "../../authority/holder.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { SharedSecret } from "../../authority/shared-secret.ts";
import type { DeliveryStatus, FetchedAck, FetchedMessage, GateLocal, LocalMessage } from "../../call/gate.ts";
import { REMOTE_GATE_TIMEOUT_MS } from "../../call/remote-gate.ts";
import { withDeadline } from "../../resilience/deadline.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { JsonText } from "../../wire/json-text.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { AccessValidations } from "../admission/access-validations.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Envelope } from "../protocol/transfer.ts";
import type { Intake } from "../queue/intake.ts";
import { pullSocket } from "../queue/dispatch.ts";
import type { Push, Queue } from "../queue/queue.ts";
import type { Relay } from "../relay/relay.ts";
import type { Sockets } from "../relay/sockets.ts";
import type { RelayTickets } from "../relay/tickets.ts";
import type { EndingCall, Revocation } from "./revocation.ts";

/** The call that acts. */
export type ActingCall = EndingCall & {
  /** The authority it runs under; null for the operator. */
  ref: AuthorityRef | null;
  by: AuditedBy;
};

/** Makes, for one call, what its method may do with the gate. */
export type Operations = (call: ActingCall) => GateLocal;

export type OperationsDeps = {
  self: AgentDid;
  authority: Pick<AgentAuthority, "isEnded">;
  devices: Devices;
  shared: SharedSecret;
  apiKeys: ApiKeys;
  audit: Pick<AuditOutbox, "record">;
  accessValidations: Pick<AccessValidations, "agentName">;
  outbox: Pick<Outbox, "accept" | "status" | "handlingOf" | "receiptsConfirmed">;
  queue: Pick<Queue, "deadLetters" | "replay" | "purge" | "isWaiting" | "fetch" | "isHeldBy" | "acknowledge">;
  intake: Pick<Intake, "putLocal" | "fencePeer" | "fenceGroup">;
  relay: Pick<Relay, "broadcast" | "announceTask">;
  sockets: Pick<Sockets, "all">;
  relayTickets: Pick<RelayTickets, "make" | "keep">;
  revocation: Revocation;
  /** Attempts so far on a message that waits at its recipient's gate; null for none such. @throws whatever that gate throws */
  attemptsAt: (recipient: AgentDid, deliveryId: string) => Promise<number | null>;
  log: Log;
  /** Makes sure that what has just been written is committed and acted on, also when the process dies at once. */
  wake: () => void;
  now: () => number;
};

/** @returns the operations of one gate. */
export function createOperations(deps: OperationsDeps): Operations {
  const { authority, devices, shared, apiKeys, queue, intake, revocation, wake, now } = deps;
  return (call) => ({
    endAgent: (end) => revocation.endAgent(call, end),
    end: (end) => revocation.end(call, end),
    isEnded: authority.isEnded,
    devices,
    connectedDevices: () => connectedDevices(deps),
    shared,
    apiKeys,
    audit(event) {
      deps.audit.record(event, call.by, now());
      wake();
    },
    broadcast: deps.relay.broadcast,
    announceTask: deps.relay.announceTask,
    deliverLocal(message) {
      call.assertCurrent();
      const put = intake.putLocal(message);
      wake();
      return put;
    },
    send(to, message) {
      call.assertCurrent();
      const sent = accept(deps, to, message);
      wake();
      return sent;
    },
    fencePeer(peer, trustEpoch) {
      intake.fencePeer(peer, trustEpoch);
      wake();
    },
    fenceGroup(fence) {
      intake.fenceGroup(fence);
      wake();
    },
    issueRelayTicket: () => issueRelayTicket(deps, call),
    deliveryStatus: (deliveryId) => deliveryStatus(deps, deliveryId),
    inbox: {
      fetch(limit) {
        call.assertCurrent();
        const fetched = queue.fetch(holderOfCall(call), limit, now()).map((push) => fetchedMessage(deps.self, push));
        wake();
        return fetched;
      },
      acknowledge(acks) {
        call.assertCurrent();
        const acknowledged = acknowledge(deps, holderOfCall(call), acks);
        wake();
        return acknowledged;
      },
    },
    isWaiting: queue.isWaiting,
    handlingOf(deliveryId, recipient) {
      const handling = deps.outbox.handlingOf(deliveryId, recipient);
      // Who asks needs no receipt of it any more.
      if (handling !== null) deps.outbox.receiptsConfirmed([deliveryId]);
      return handling;
    },
    deadLetters: {
      list: (before, limit) => queue.deadLetters(before, limit),
      replay(id) {
        call.assertCurrent();
        const replayed = queue.replay(id, now());
        wake();
        return replayed;
      },
      purge(id) {
        call.assertCurrent();
        return queue.purge(id);
      },
    },
  });
}

function holderOfCall({ ref }: ActingCall): Holder {
  if (ref === null) throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "an operator has no inbox" });
  return holderOf(ref.principal);
}

function fetchedMessage(self: AgentDid, { deliveryId, envelope, body }: Push): FetchedMessage {
  const { trustEpoch: _trustEpoch, groupEpoch: _groupEpoch, isAwaited: _isAwaited, ...members } = envelope;
  return { deliveryId, toAgentDid: self, ...members, payload: new JsonText(body) };
}

function acknowledge({ queue, now }: OperationsDeps, holder: Holder, acks: readonly FetchedAck[]): number {
  // Of one that stands twice the first counts.
  const first = new Map(acks.toReversed().map((ack) => [ack.deliveryId, ack]));
  const own = acks.filter((ack) => first.get(ack.deliveryId) === ack && queue.isHeldBy(ack.deliveryId, holder));
  const { socketId } = pullSocket(holder, now());
  queue.acknowledge(
    own.map(({ reason, ...ack }) => ({ ...ack, holder, socketId, reason: reason ?? null })),
    now(),
  );
  return own.length;
}

function accept(
  { self, outbox, accessValidations, now }: OperationsDeps,
  to: AgentDid,
  message: LocalMessage,
): { deliveryId: string } {
  const { fromAgentDid, fromSubject, conversationId, payload } = message;
  const fromName = fromAgentDid === self ? accessValidations.agentName() : null;
  const envelope: Envelope = {
    fromAgentDid,
    contentType: "application/json",
    ...(fromSubject === undefined ? {} : { fromSubject }),
    ...(fromName === null ? {} : { fromName }),
    ...(conversationId === undefined ? {} : { conversationId }),
  };
  const bytes = new TextEncoder().encode(payload).length;
  try {
    const { deliveryId } = outbox.accept({ to, bytes, envelope: JSON.stringify(envelope), body: payload }, now());
    return { deliveryId };
  } catch (error) {
    throw error instanceof GateRefusal ? refusalError(error.refusal) : error;
  }
}

function connectedDevices({ sockets }: OperationsDeps): ReadonlySet<string> {
  const ids = sockets.all().map(({ authority }) => (authority.kind === "device" ? authority.principal.deviceId : null));
  return new Set(ids.filter((id) => id !== null));
}

async function issueRelayTicket(
  { self, relayTickets, now }: OperationsDeps,
  { ref, assertCurrent }: ActingCall,
): Promise<{ ticket: string; expiresAtMs: number }> {
  if (ref === null)
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a relay ticket carries an agent's authority" });
  const { ticket, sha256 } = await relayTickets.make(self);
  assertCurrent();
  return { ticket, expiresAtMs: relayTickets.keep(sha256, ref, now()) };
}

async function deliveryStatus(
  { outbox, attemptsAt, now, log }: OperationsDeps,
  deliveryId: string,
): Promise<DeliveryStatus | null> {
  const found = outbox.status(deliveryId, now());
  if (found === null) return null;
  const { to, handedOver, ...status } = found;
  // Who asks how a message ended needs no receipt of it any more.
  if (status.state !== "queued" && status.state !== "delivered") outbox.receiptsConfirmed([deliveryId]);
  if (!handedOver) return status;
  try {
    const attempts = await withDeadline(REMOTE_GATE_TIMEOUT_MS, () => attemptsAt(to, deliveryId));
    return { ...status, attempts: attempts ?? status.attempts };
  } catch (error) {
    log.error("gate.failed", { to, ...errorFields(error) });
    return { ...status, attempts: null };
  }
}
