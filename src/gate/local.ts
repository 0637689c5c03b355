/** What a method may do with the gate it runs in. */
import type { EndAgent, Fenced, GateLocal, LocalMessage, Scope } from "../rpc/method.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError, proxyErrorFrom } from "../wire/problem.ts";
import { RELAY_CLOSE_REASON } from "../wire/relay-close.ts";
import type { AgentRef } from "./authority.ts";
import type { Envelope } from "./delivery.ts";
import type { House } from "./house.ts";

export type LocalDeps = {
  self: AgentDid;
  /** The authority of the call that acts; null for the operator. */
  ref: AgentRef | null;
  scopes: readonly Scope[];
  db: D1Database;
  now: () => number;
  assertCurrent: () => void;
  putLocal: (message: LocalMessage) => { deliveryId: string };
  fencePeer: (peer: AgentDid, trustEpoch: number) => void;
  attemptsAt: (recipient: AgentDid, deliveryId: string) => Promise<number | null>;
  closeEnded: () => void;
  wake: () => void;
};

export function createLocal(house: House, deps: LocalDeps): GateLocal {
  const { outbox, queue, authority, calls, sockets, relayTickets } = house;

  const endAgent = async ({ reason, keepJti, commit }: EndAgent): Promise<Fenced> => {
    // One turn: from here on nothing of this agent is accepted, and every socket and call finds itself ended.
    authority.endAll(reason);
    const fenced = { sockets: sockets.all().filter(({ authority: ref }) => isEnded(ref)).length, inFlight: calls.endedCount() };
    if (keepJti === undefined) queue.endAll("recipient revoked", deps.now());

    const raise = raiseStatement(deps.db, `agent:${deps.self}`, authority.epoch());
    const ended = await commit([raise]).catch((error: unknown) => {
      // A re-key that was refused has changed nothing in D1: the agent goes on as it was.
      if (keepJti !== undefined && proxyErrorFrom(error).status < 500) authority.resume();
      throw error;
    });
    authority.endTokens(
      ended.filter(({ jti }) => jti !== keepJti).map(({ jti, expMs }) => ({ jti, expMs })),
      reason,
    );
    if (!(await calls.drain())) {
      throw new ProxyError("DRAIN_TIMEOUT", { reason: `${calls.endedCount()} calls in flight did not end` });
    }
    if (keepJti !== undefined) authority.resume();
    deps.closeEnded();
    return fenced;
  };

  const isEnded = (ref: AgentRef): boolean => authority.whyEnded(ref, deps.now()) === RELAY_CLOSE_REASON.agentRevoked;

  return {
    endAgent,
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
      const { deliveryId } = outbox.accept({ to, bytes, envelope: JSON.stringify(envelope), body: message.payload }, deps.now());
      deps.wake();
      return { deliveryId };
    },
    fencePeer(peer, trustEpoch) {
      deps.fencePeer(peer, trustEpoch);
      deps.wake();
    },
    async issueRelayTicket() {
      const { ref } = deps;
      if (ref === null) throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a relay ticket carries an agent's authority" });
      const { ticket, sha256 } = await relayTickets.make(deps.self);
      deps.assertCurrent();
      return { ticket, expiresAtMs: relayTickets.keep(sha256, { authority: ref, scopes: deps.scopes }, deps.now()) };
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

/** Raises the fencing token of an authority; never lowers it. */
export function raiseStatement(db: D1Database, authority: string, epoch: number): D1PreparedStatement {
  return db
    .prepare(
      "INSERT INTO authority_epochs (authority, epoch) VALUES (?1, ?2) ON CONFLICT (authority) DO UPDATE SET epoch = MAX(epoch, excluded.epoch)",
    )
    .bind(authority, epoch);
}
