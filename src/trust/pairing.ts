/** Pairing, contract §3: two agents that never met come to trust each other by a ticket that works once. */
import { type AuditedCall, auditOfEffectStatement } from "../audit/entry.ts";
import type { Authority } from "../authority/authority.ts";
import { commitUnder } from "../call/caller.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { newUlid } from "../wire/ulid.ts";
import { type NotificationDeps, NOTIFY_GRACE_MS, notifyInitiator } from "./notifications.ts";
import { makeTrustStatement } from "./pairs.ts";
import type { Profile } from "./profile.ts";
import {
  consumeTicketStatement,
  findTicket,
  makeTicketStatements,
  PENDING_TICKETS_MAX,
  selectTicketStatement,
  type TicketRow,
} from "./ticket-store.ts";
import { hashPairTicket, newPairTicket, type PairTicket, parsePairTicket } from "./ticket.ts";

/** What pairing needs of a call: the store, the gates, the clock, and the caller's authority. */
export type PairingDeps = NotificationDeps & AuditedCall & { readonly authority: Authority };

/** A ticket, shown once, and whom it introduces. */
export type StartedPairing = {
  ticket: PairTicket;
  expiresAtMs: number;
  /** The same as ISO 8601. */
  expiresAt: string;
  initiatorAgentDid: AgentDid;
  initiatorProfile: Profile;
};

/** Two agents that have paired. */
export type ConfirmedPairing = {
  initiatorAgentDid: AgentDid;
  initiatorProfile: Profile;
  responderAgentDid: AgentDid;
  responderProfile: Profile;
  /** Whether the initiator's gate has the notice; where not, it is pending, and the trust stands all the same. */
  notified: boolean;
};

/** What became of a ticket. Times are ISO 8601. */
export type PairingStatus = {
  status: "pending" | "confirmed";
  expiresAt: string;
  initiatorAgentDid: AgentDid;
  initiatorProfile: Profile;
  responderAgentDid?: AgentDid;
  responderProfile?: Profile;
  confirmedAt?: string;
};

/**
 * Makes a ticket of the initiator's.
 *
 * @returns the ticket, shown once, and when it ends
 * @throws ProxyError 429 while {@link PENDING_TICKETS_MAX} of the initiator's are pending, until the first of them expires
 */
export async function startPairing(
  deps: PairingDeps,
  start: { initiatorDid: AgentDid; profile: Profile; ttlSeconds: number; allowedResponderDid: AgentDid | null },
): Promise<StartedPairing> {
  if (start.allowedResponderDid === start.initiatorDid) {
    throw new ProxyError("PROXY_PAIR_INVALID_BODY", { detail: "an agent cannot pair with itself" });
  }
  const ticket = newPairTicket();
  const hash = await hashPairTicket(ticket);
  const nowMs = deps.now();
  const expiresAtMs = nowMs + start.ttlSeconds * 1_000;
  const { initiatorDid, profile: initiatorProfile, allowedResponderDid } = start;
  const [make, ...rest] = makeTicketStatements({
    hash,
    initiatorDid,
    initiatorProfile,
    allowedResponderDid,
    nowMs,
    expiresAtMs,
  });
  const audited = auditOfEffectStatement(deps, {
    action: "pair.start",
    subject: `agent:${initiatorDid}`,
    agentDid: initiatorDid,
    result: "ok",
    details: { allowedResponderDid, expiresAtMs },
  });
  const [made, , [pending]] = await commitUnder(deps, [make, audited, ...rest]);
  if (made.meta.changes === 0) {
    throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", {
      detail: `an agent may have ${PENDING_TICKETS_MAX} pairing tickets pending at a time`,
      reason: "pair-tickets-pending",
      retryAfterMs: Math.max(0, (pending?.roomAtMs ?? 0) - nowMs),
    });
  }
  return { ticket, expiresAtMs, expiresAt: isoTime(expiresAtMs), initiatorAgentDid: initiatorDid, initiatorProfile };
}

/**
 * Consumes the ticket and makes trust, in one commit; then notifies the initiator over its relay.
 *
 * @returns the two, and whether the initiator's gate has the notification. Where it has not, the trust stands all the same and the
 *          notification stays pending.
 * @throws ProxyError by the state of the ticket, see {@link refuseTicket}
 */
export async function confirmPairing(
  deps: PairingDeps,
  confirm: { responderDid: AgentDid; profile: Profile; ticket: string },
): Promise<ConfirmedPairing> {
  const { responderDid, profile: responderProfile } = confirm;
  const hash = await hashPairTicket(readTicketText(confirm.ticket));
  // The initiator never changes, so it may be read before the commit; everything that can change is decided inside it.
  const found = await findTicket(deps.db, hash);
  if (found === null) throw invalidTicket("pair-ticket-unknown");
  const { initiatorDid } = found;
  const initiatorProfile = JSON.parse(found.initiatorProfile) as Profile;
  if (initiatorDid === responderDid) throw invalidTicket("pair-with-itself", "an agent cannot pair with itself");

  const nowMs = deps.now();
  const confirmId = newUlid(nowMs);
  const [, , , [ticket]] = await commitUnder(deps, [
    consumeTicketStatement({
      hash,
      confirmId,
      responderDid,
      responderProfile,
      nowMs,
      notifyAtMs: nowMs + NOTIFY_GRACE_MS,
    }),
    makeTrustStatement({
      confirmId,
      sides: [
        { did: initiatorDid, profile: initiatorProfile },
        { did: responderDid, profile: responderProfile },
      ],
      nowMs,
    }),
    auditOfEffectStatement(deps, {
      action: "pair.confirm",
      subject: `agent:${responderDid}`,
      agentDid: responderDid,
      result: "ok",
      details: { peerAgentDid: initiatorDid },
    }),
    selectTicketStatement(hash),
  ]);
  if (ticket?.confirmId !== confirmId) throw refuseTicket(ticket ?? null, responderDid, nowMs);

  const notified = await notifyInitiator(deps, {
    confirmId,
    initiatorDid,
    initiatorProfile,
    responderDid,
    responderProfile,
    confirmedAtMs: nowMs,
  });
  return {
    initiatorAgentDid: initiatorDid,
    initiatorProfile,
    responderAgentDid: responderDid,
    responderProfile,
    notified,
  };
}

/**
 * What became of a ticket, for its participants alone: the initiator, the responder it was meant for, and the one
 * who confirmed it.
 *
 * @throws ProxyError `PROXY_NOT_FOUND` for anybody else as for a ticket that does not exist; `PROXY_GONE` once it expired
 */
export async function pairingStatus(
  deps: Pick<PairingDeps, "db" | "now">,
  asked: { agentDid: AgentDid; ticket: string },
): Promise<PairingStatus> {
  const ticket = await findTicket(deps.db, await hashPairTicket(readTicketText(asked.ticket)));
  if (ticket === null || !isParticipant(ticket, asked.agentDid)) throw new ProxyError("PROXY_NOT_FOUND");
  if (ticket.status === "confirmed") return statusOf("confirmed", ticket);
  if (ticket.status === "ended" || ticket.expiresAtMs <= deps.now()) throw new ProxyError("PROXY_GONE");
  return statusOf("pending", ticket);
}

function statusOf(status: PairingStatus["status"], ticket: TicketRow): PairingStatus {
  const { initiatorDid, initiatorProfile, responderDid, responderProfile, expiresAtMs, confirmedAtMs } = ticket;
  return {
    status,
    expiresAt: isoTime(expiresAtMs),
    initiatorAgentDid: initiatorDid,
    initiatorProfile: JSON.parse(initiatorProfile) as Profile,
    ...(responderDid === null ? {} : { responderAgentDid: responderDid }),
    ...(responderProfile === null ? {} : { responderProfile: JSON.parse(responderProfile) as Profile }),
    ...(confirmedAtMs === null ? {} : { confirmedAt: isoTime(confirmedAtMs) }),
  };
}

const isoTime = (atMs: number): string => new Date(atMs).toISOString();

function isParticipant(ticket: TicketRow, agentDid: AgentDid): boolean {
  return (
    ticket.initiatorDid === agentDid || ticket.allowedResponderDid === agentDid || ticket.responderDid === agentDid
  );
}

/**
 * Why a ticket was not consumed. One meant for another responder says nothing about its state.
 *
 * @returns unknown → 400, another's → 403, used → 409, expired or ended → 410
 */
function refuseTicket(ticket: TicketRow | null, responderDid: AgentDid, nowMs: number): ProxyError {
  if (ticket === null) return invalidTicket("pair-ticket-unknown");
  if (ticket.allowedResponderDid !== null && ticket.allowedResponderDid !== responderDid) {
    return new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "pair-ticket-for-another-responder" });
  }
  if (ticket.status === "confirmed") {
    return new ProxyError("PROXY_CONFLICT", { detail: "the ticket has been used", reason: "pair-ticket-used" });
  }
  if (ticket.status === "ended" || ticket.expiresAtMs <= nowMs) {
    return new ProxyError("PROXY_GONE", { detail: "the ticket has expired", reason: `pair-ticket-${ticket.status}` });
  }
  throw new Error("a ticket that could be consumed was not");
}

function readTicketText(text: string): PairTicket {
  const ticket = parsePairTicket(text);
  if (ticket === null) throw invalidTicket("pair-ticket-malformed");
  return ticket;
}

function invalidTicket(reason: string, detail?: string): ProxyError {
  return new ProxyError("PROXY_PAIR_TICKET_INVALID", { reason, detail });
}
