/** Pairing tickets in D1: made, consumed once, looked up, ended. */
import type { AgentDid } from "../wire/did.ts";
import type { Profile } from "./profile.ts";

/** A ticket as it stands, without its secret. */
export type TicketRow = {
  readonly initiatorDid: AgentDid;
  readonly initiatorProfile: Profile;
  readonly allowedResponderDid: AgentDid | null;
  readonly status: "pending" | "confirmed" | "ended";
  readonly expiresAtMs: number;
  readonly confirmId: string | null;
  readonly responderDid: AgentDid | null;
};

/** A confirmation whose initiator has not been told. */
export type OwedNotification = {
  readonly confirmId: string;
  readonly initiatorDid: AgentDid;
  readonly responderDid: AgentDid;
  readonly responderProfile: Profile;
  readonly confirmedAtMs: number;
  readonly attempts: number;
  /** Whether the pair still trusts each other; news of a trust that has ended is no longer news. */
  readonly stands: boolean;
};

type StoredTicket = {
  initiator_did: AgentDid;
  initiator_profile: string;
  allowed_responder_did: AgentDid | null;
  status: TicketRow["status"];
  expires_at_ms: number;
  confirm_id: string | null;
  responder_did: AgentDid | null;
};

/** How long an expired ticket is still told from an unknown one, and a confirmed one still answers `/pair/status`. */
const TICKET_RETENTION_MS = 86_400_000;
/** Tickets of one agent that may be pending at a time. */
export const PENDING_TICKETS_MAX = 100;
/** Tickets of one agent that are over and still remembered: what it makes by the second must not stay for that day. */
export const PAST_TICKETS_MAX = 1_000;

/** A ticket that was made; or, where too many are pending, when the first of them expires. */
export type MadeTicket = { readonly made: true } | { readonly made: false; readonly roomAtMs: number };

/**
 * Makes a ticket unless {@link PENDING_TICKETS_MAX} of its initiator's are pending, and forgets what of that initiator's is
 * over beyond {@link PAST_TICKETS_MAX}, one with a notification owed excepted. {@link readMadeTicket} reads the results.
 */
export function makeTicketStatements(
  db: D1Database,
  ticket: {
    hash: string;
    initiatorDid: AgentDid;
    initiatorProfile: Profile;
    allowedResponderDid: AgentDid | null;
    nowMs: number;
    expiresAtMs: number;
  },
): [D1PreparedStatement, D1PreparedStatement, D1PreparedStatement] {
  const { initiatorDid, nowMs } = ticket;
  return [
    db
      .prepare(
        `INSERT INTO pair_tickets (ticket_hash, initiator_did, initiator_profile, allowed_responder_did, created_at_ms, expires_at_ms)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE ?7 >
           (SELECT COUNT(*) FROM pair_tickets WHERE initiator_did = ?2 AND status = 'pending' AND expires_at_ms > ?5)`,
      )
      .bind(
        ticket.hash,
        initiatorDid,
        JSON.stringify(ticket.initiatorProfile),
        ticket.allowedResponderDid,
        nowMs,
        ticket.expiresAtMs,
        PENDING_TICKETS_MAX,
      ),
    db
      .prepare(
        `SELECT MIN(expires_at_ms) AS roomAtMs FROM pair_tickets
         WHERE initiator_did = ?1 AND status = 'pending' AND expires_at_ms > ?2`,
      )
      .bind(initiatorDid, nowMs),
    db
      .prepare(
        `DELETE FROM pair_tickets WHERE ticket_hash IN (
           SELECT ticket_hash FROM pair_tickets
           WHERE initiator_did = ?1 AND (status <> 'pending' OR expires_at_ms <= ?2) AND notify_at_ms IS NULL
           ORDER BY expires_at_ms DESC LIMIT -1 OFFSET ?3)`,
      )
      .bind(initiatorDid, nowMs, PAST_TICKETS_MAX),
  ];
}

export function readMadeTicket(inserted: D1Result | undefined, pending: D1Result | undefined): MadeTicket {
  if ((inserted?.meta.changes ?? 0) > 0) return { made: true };
  const row = pending?.results[0] as { roomAtMs: number | null } | undefined;
  return { made: false, roomAtMs: row?.roomAtMs ?? 0 };
}

/**
 * Consumes the ticket for the call `confirmId`, if it is pending, unexpired, and meant for this responder. Of any number
 * of such statements one changes a row; the initiator's notification is owed from `notifyAtMs`.
 */
export function consumeTicketStatement(
  db: D1Database,
  use: {
    hash: string;
    confirmId: string;
    responderDid: AgentDid;
    responderProfile: Profile;
    nowMs: number;
    notifyAtMs: number;
  },
): D1PreparedStatement {
  return db
    .prepare(
      `UPDATE pair_tickets SET status = 'confirmed', confirm_id = ?2, responder_did = ?3, responder_profile = ?4,
         confirmed_at_ms = ?5, notify_at_ms = ?6
       WHERE ticket_hash = ?1 AND status = 'pending' AND expires_at_ms > ?5
         AND initiator_did <> ?3 AND (allowed_responder_did IS NULL OR allowed_responder_did = ?3)`,
    )
    .bind(use.hash, use.confirmId, use.responderDid, JSON.stringify(use.responderProfile), use.nowMs, use.notifyAtMs);
}

/** The ticket by its hash, for a batch or by itself; {@link readTicket} reads the row. */
export function selectTicketStatement(db: D1Database | D1DatabaseSession, hash: string): D1PreparedStatement {
  return db
    .prepare(
      `SELECT initiator_did, initiator_profile, allowed_responder_did, status, expires_at_ms, confirm_id, responder_did
       FROM pair_tickets WHERE ticket_hash = ?1`,
    )
    .bind(hash);
}

export function readTicket(row: unknown): TicketRow | null {
  if (row === undefined || row === null) return null;
  const stored = row as StoredTicket;
  return {
    initiatorDid: stored.initiator_did,
    initiatorProfile: JSON.parse(stored.initiator_profile) as Profile,
    allowedResponderDid: stored.allowed_responder_did,
    status: stored.status,
    expiresAtMs: stored.expires_at_ms,
    confirmId: stored.confirm_id,
    responderDid: stored.responder_did,
  };
}

/** Reads at the primary: a confirmation a moment ago is seen. */
export async function findTicket(db: D1Database, hash: string): Promise<TicketRow | null> {
  return readTicket(await selectTicketStatement(db.withSession("first-primary"), hash).first());
}

/**
 * Ends every pending ticket of this agent, for the batch that ends the agent (`agents/revoke`, `rekey`): what it started
 * cannot be confirmed afterwards. Tickets that name it as responder stay with their initiators.
 */
export function endTicketsStatement(db: D1Database, initiatorDid: AgentDid): D1PreparedStatement {
  return db
    .prepare("UPDATE pair_tickets SET status = 'ended' WHERE initiator_did = ?1 AND status = 'pending'")
    .bind(initiatorDid);
}

/** Notifications due, oldest first. */
export async function listPendingNotifications(
  db: D1Database,
  nowMs: number,
  limit: number,
): Promise<OwedNotification[]> {
  const { results } = await db
    .withSession("first-primary")
    .prepare(
      `SELECT t.confirm_id, t.initiator_did, t.responder_did, t.responder_profile, t.confirmed_at_ms, t.notify_attempts,
         EXISTS (SELECT 1 FROM trust_pairs p WHERE p.low_did = min(t.initiator_did, t.responder_did)
           AND p.high_did = max(t.initiator_did, t.responder_did) AND p.removed_at_ms IS NULL) AS stands
       FROM pair_tickets t WHERE t.notify_at_ms <= ?1 ORDER BY t.notify_at_ms LIMIT ?2`,
    )
    .bind(nowMs, limit)
    .all<{
      confirm_id: string;
      initiator_did: AgentDid;
      responder_did: AgentDid;
      responder_profile: string;
      confirmed_at_ms: number;
      notify_attempts: number;
      stands: number;
    }>();
  return results.map((row) => ({
    confirmId: row.confirm_id,
    initiatorDid: row.initiator_did,
    responderDid: row.responder_did,
    responderProfile: JSON.parse(row.responder_profile) as Profile,
    confirmedAtMs: row.confirmed_at_ms,
    attempts: row.notify_attempts,
    stands: row.stands === 1,
  }));
}

/** The notification is in the initiator's queue, or no longer owed. */
export async function settleNotification(db: D1Database, confirmId: string): Promise<void> {
  await db.prepare("UPDATE pair_tickets SET notify_at_ms = NULL WHERE confirm_id = ?1").bind(confirmId).run();
}

/** Tries the notification again at `notifyAtMs`. */
export async function postponeNotification(db: D1Database, confirmId: string, notifyAtMs: number): Promise<void> {
  await db
    .prepare(
      `UPDATE pair_tickets SET notify_at_ms = ?2, notify_attempts = notify_attempts + 1
       WHERE confirm_id = ?1 AND notify_at_ms IS NOT NULL`,
    )
    .bind(confirmId, notifyAtMs)
    .run();
}

/**
 * Forgets tickets a day after they expired; one with a notification owed stays.
 *
 * @returns how many went, at most `limit`
 */
export async function pruneTickets(db: D1Database, nowMs: number, limit: number): Promise<number> {
  const { meta } = await db
    .prepare(
      `DELETE FROM pair_tickets WHERE ticket_hash IN (
         SELECT ticket_hash FROM pair_tickets WHERE expires_at_ms < ?1 AND notify_at_ms IS NULL ORDER BY expires_at_ms LIMIT ?2)`,
    )
    .bind(nowMs - TICKET_RETENTION_MS, limit)
    .run();
  return meta.changes;
}
