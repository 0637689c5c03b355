/** What a method may do with the gate it runs in. */
import type { AuditedBy } from "../../audit/outbox.ts";
import { refusalError } from "../../auth/reasons.ts";
import type { EndAgent, Fenced } from "../../authority/authority.ts";
import { deviceAuthority, sharedAuthority } from "../../authority/names.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { GateLocal, LocalMessage } from "../../call/gate.ts";
import { raiseStatement } from "../../database/fencing.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError, proxyErrorFrom } from "../../wire/problem.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Envelope } from "../protocol/transfer.ts";
import type { GateState } from "../state.ts";
import { raiseAtPrimary, withinDrainTime } from "./revocation.ts";

export type LocalDeps = {
  self: AgentDid;
  /** The authority of the call that acts; null for the operator. */
  ref: AuthorityRef | null;
  db: D1Database;
  now: () => number;
  assertCurrent: () => void;
  putLocal: (message: LocalMessage) => { deliveryId: string };
  fencePeer: (peer: AgentDid, trustEpoch: number) => void;
  attemptsAt: (recipient: AgentDid, deliveryId: string) => Promise<number | null>;
  by: AuditedBy;
  broadcast: (event: string, payload: Record<string, unknown>) => void;
  wake: () => void;
  /** Told before this call ends an authority: sockets will have to be closed after it. */
  ends: () => void;
};

export function createLocal(state: GateState, deps: LocalDeps): GateLocal {
  const { outbox, queue, authority, devices, shared, apiKeys, calls, sockets, relayTickets } = state;

  /** Sockets whose authority is over but which are open still. */
  const endedSockets = (): number => sockets.all().filter(({ authority: ref }) => state.endReason(ref) !== null).length;

  const drain = async (): Promise<void> => {
    if (await calls.drain()) return;
    throw new ProxyError("DRAIN_TIMEOUT", {
      reason: `${calls.endedCount()} calls in flight did not end`,
      retryAfterMs: 1_000,
    });
  };

  const end: GateLocal["end"] = async ({ apply, raise }) => {
    deps.assertCurrent();
    const before = { sockets: endedSockets(), inFlight: calls.endedCount() };
    // One turn: from here on nothing under the old authority is accepted.
    deps.ends();
    const applied = apply();
    const fenced = { sockets: endedSockets() - before.sockets, inFlight: calls.endedCount() - before.inFlight };
    deps.wake();
    const statements = raise(applied).map(({ authority: name, epoch }) => raiseStatement(deps.db, name, epoch));
    await withinDrainTime(() => Promise.all([raiseAtPrimary(deps.db, statements), drain()]));
    return { applied, fenced };
  };

  const endAgent = async ({ reason, keepJti, commit }: EndAgent): Promise<Fenced> => {
    const before = { sockets: endedSockets(), inFlight: calls.endedCount() };
    // While there is somebody left to hear it; what is sent in this turn leaves with what is written in it.
    if (keepJti === undefined) deps.broadcast("agent.revoked", { agentDid: deps.self });
    // One turn: from here on nothing of this agent is accepted, and every socket and call finds itself ended.
    deps.ends();
    const ending = authority.endAll(reason);
    const fenced = { sockets: endedSockets() - before.sockets, inFlight: calls.endedCount() - before.inFlight };
    deps.wake();
    const raise = [
      raiseStatement(deps.db, `agent:${deps.self}`, authority.epoch()),
      ...devices
        .active()
        .map(({ deviceId, epoch }) => raiseStatement(deps.db, deviceAuthority(deps.self, deviceId), epoch + 1)),
      raiseStatement(deps.db, sharedAuthority(deps.self), shared.generation() + 1),
    ];
    try {
      await withinDrainTime(async () => {
        const ended = await commit(raise);
        // A re-key that was given up has been repeated perhaps, and what stands now is the repetition's.
        if (keepJti !== undefined && !ending.isInProgress()) return;
        endRest(
          ended.filter(({ jti }) => jti !== keepJti),
          reason,
        );
        if (keepJti === undefined) {
          ending.commit();
          queue.endAll("recipient revoked", deps.now());
        }
        await drain();
        if (keepJti !== undefined) ending.resume();
      });
    } catch (error) {
      if (keepJti !== undefined && proxyErrorFrom(error).status < 500) ending.abort();
      else ending.leaveUnknown();
      throw error;
    } finally {
      deps.wake();
    }
    return fenced;
  };

  /** Everything that was issued besides the agent's own credential, and the tokens by their names. */
  const endRest = (tokens: { jti: string; expMs: number }[], reason: string): void => {
    authority.endTokens(tokens, reason);
    apiKeys.endAll();
    for (const device of devices.active()) devices.end(device, "revoked", deps.now());
    devices.requests.dropAll();
    shared.replace(null);
  };

  return {
    endAgent,
    end,
    isEnded: authority.isEnded,
    devices,
    shared,
    apiKeys,
    audit(event) {
      state.audit.record(event, deps.by, deps.now());
      deps.wake();
    },
    broadcast: deps.broadcast,
    deliverLocal(message) {
      deps.assertCurrent();
      const put = deps.putLocal(message);
      deps.wake();
      return put;
    },
    send(to, message) {
      deps.assertCurrent();
      const envelope: Envelope = {
        fromAgentDid: message.fromAgentDid,
        contentType: "application/json",
        ...(message.fromSubject === undefined ? {} : { fromSubject: message.fromSubject }),
        ...(message.conversationId === undefined ? {} : { conversationId: message.conversationId }),
      };
      const bytes = new TextEncoder().encode(message.payload).length;
      try {
        const draft = { to, bytes, envelope: JSON.stringify(envelope), body: message.payload };
        const { deliveryId } = outbox.accept(draft, deps.now());
        deps.wake();
        return { deliveryId };
      } catch (error) {
        throw error instanceof GateRefusal ? refusalError(error.refusal) : error;
      }
    },
    fencePeer(peer, trustEpoch) {
      deps.fencePeer(peer, trustEpoch);
      deps.wake();
    },
    async issueRelayTicket() {
      const { ref } = deps;
      if (ref === null)
        throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a relay ticket carries an agent's authority" });
      const { ticket, sha256 } = await relayTickets.make(deps.self);
      deps.assertCurrent();
      return { ticket, expiresAtMs: relayTickets.keep(sha256, ref, deps.now()) };
    },
    async deliveryStatus(deliveryId) {
      const found = outbox.status(deliveryId, deps.now());
      if (found === null) return null;
      const { to, handedOver, ...status } = found;
      if (!handedOver) return status;
      return { ...status, attempts: (await deps.attemptsAt(to, deliveryId)) ?? status.attempts };
    },
    deadLetters: {
      list: (before, limit) => queue.deadLetters(before, limit),
      replay(id) {
        deps.assertCurrent();
        const replayed = queue.replay(id, deps.now());
        deps.wake();
        return replayed;
      },
      purge(id) {
        deps.assertCurrent();
        return queue.purge(id);
      },
    },
  };
}
