/** Pairing tickets in D1: made, consumed once, looked up, ended. */
import { and, asc, desc, eq, gt, inArray, isNotNull, isNull, lt, lte, min, ne, or, sql } from "drizzle-orm";
import { names } from "../database/columns.ts";
import { execute, readAll, readFirst } from "../database/read.ts";
import { pairTickets, trustPairs } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import type { AgentDid } from "../wire/did.ts";
import type { Profile } from "./profile.ts";

const { initiatorDid, initiatorProfile, allowedResponderDid, status, expiresAtMs, confirmId } = pairTickets;
const { responderDid, responderProfile, confirmedAtMs } = pairTickets;
const SHOWN = {
  initiatorDid,
  initiatorProfile,
  allowedResponderDid,
  status,
  expiresAtMs,
  confirmId,
  responderDid,
  responderProfile,
  confirmedAtMs,
};

/** A ticket as it stands, without its secret. The profile is JSON text. */
export type TicketRow = Pick<typeof pairTickets.$inferSelect, keyof typeof SHOWN>;

/** A confirmation whose initiator has not been notified. */
export type PendingNotification = {
  readonly confirmId: string;
  readonly initiatorDid: AgentDid;
  readonly initiatorProfile: Profile;
  readonly responderDid: AgentDid;
  readonly responderProfile: Profile;
  readonly confirmedAtMs: number;
  readonly attempts: number;
  /** Whether the pair still trusts each other; where trust has ended nobody is notified of it any more. */
  readonly stands: boolean;
};

/** How long an expired ticket is still distinguished from an unknown one, and a confirmed one still answers `/pair/status`. */
const TICKET_RETENTION_MS = 86_400_000;
/** Tickets of one agent that may be pending at a time. */
export const PENDING_TICKETS_MAX = 100;
/** Tickets of one agent that are over and still remembered: what it makes by the second must not stay for that day. */
export const PAST_TICKETS_MAX = 1_000;

/**
 * Makes a ticket unless {@link PENDING_TICKETS_MAX} of its initiator's are pending (the first statement then changes nothing, and
 * the second selects when the first of them expires), and forgets what of that initiator's is over beyond
 * {@link PAST_TICKETS_MAX}, one with a pending notification excepted.
 */
export function makeTicketStatements(ticket: {
  hash: string;
  initiatorDid: AgentDid;
  initiatorProfile: Profile;
  allowedResponderDid: AgentDid | null;
  nowMs: number;
  expiresAtMs: number;
}): [Statement<D1Result>, Statement<{ roomAtMs: number | null }[]>, Statement<D1Result>] {
  const { nowMs } = ticket;
  const isInitiators = eq(initiatorDid, ticket.initiatorDid);
  const isPending = and(isInitiators, eq(status, "pending"), gt(expiresAtMs, nowMs));
  const { ticketHash, createdAtMs, notifyAtMs } = pairTickets;
  const past = query
    .select({ ticketHash })
    .from(pairTickets)
    .where(and(isInitiators, or(ne(status, "pending"), lte(expiresAtMs, nowMs)), isNull(notifyAtMs)))
    .orderBy(desc(expiresAtMs))
    // SQLite has no OFFSET without a LIMIT.
    .limit(Number.MAX_SAFE_INTEGER)
    .offset(PAST_TICKETS_MAX);
  return [
    query.run(sql`
      INSERT INTO ${pairTickets}
        (${names(ticketHash, initiatorDid, initiatorProfile, allowedResponderDid, createdAtMs, expiresAtMs)})
      SELECT ${ticket.hash}, ${ticket.initiatorDid}, ${JSON.stringify(ticket.initiatorProfile)},
        ${ticket.allowedResponderDid}, ${nowMs}, ${ticket.expiresAtMs}
      WHERE ${PENDING_TICKETS_MAX} > (SELECT COUNT(*) FROM ${pairTickets} WHERE ${isPending})`),
    query
      .select({ roomAtMs: min(expiresAtMs) })
      .from(pairTickets)
      .where(isPending),
    query.delete(pairTickets).where(inArray(ticketHash, past)),
  ];
}

/**
 * Consumes the ticket for the call `confirmId`, if it is pending, unexpired, and meant for this responder. Of any number
 * of such statements one changes a row; the initiator's notification is pending from `notifyAtMs`.
 */
export function consumeTicketStatement(use: {
  hash: string;
  confirmId: string;
  responderDid: AgentDid;
  responderProfile: Profile;
  nowMs: number;
  notifyAtMs: number;
}): Statement<D1Result> {
  return query
    .update(pairTickets)
    .set({
      status: "confirmed",
      confirmId: use.confirmId,
      responderDid: use.responderDid,
      responderProfile: JSON.stringify(use.responderProfile),
      confirmedAtMs: use.nowMs,
      notifyAtMs: use.notifyAtMs,
    })
    .where(
      and(
        eq(pairTickets.ticketHash, use.hash),
        eq(status, "pending"),
        gt(expiresAtMs, use.nowMs),
        ne(initiatorDid, use.responderDid),
        or(isNull(allowedResponderDid), eq(allowedResponderDid, use.responderDid)),
      ),
    );
}

/** The ticket by its hash, for a batch or by itself. */
export function selectTicketStatement(hash: string): Statement<TicketRow[]> {
  return query.select(SHOWN).from(pairTickets).where(eq(pairTickets.ticketHash, hash));
}

/** Reads at the primary: a confirmation a moment ago is seen. */
export async function findTicket(db: D1Database, hash: string): Promise<TicketRow | null> {
  return readFirst(db.withSession("first-primary"), selectTicketStatement(hash));
}

/**
 * Ends every pending ticket of this agent, for the batch that ends the agent (`agents/revoke`, `rekey`): what it started
 * cannot be confirmed afterwards. Tickets that name it as responder stay with their initiators.
 */
export function endTicketsStatement(agentDid: AgentDid): Statement<D1Result> {
  return query
    .update(pairTickets)
    .set({ status: "ended" })
    .where(and(eq(initiatorDid, agentDid), eq(status, "pending")));
}

/** Notifications due, oldest first. */
export async function listPendingNotifications(
  db: D1Database,
  nowMs: number,
  limit: number,
): Promise<PendingNotification[]> {
  const { lowDid, highDid, removedAtMs } = trustPairs;
  const standing = and(
    sql`${lowDid} = MIN(${initiatorDid}, ${responderDid})`,
    sql`${highDid} = MAX(${initiatorDid}, ${responderDid})`,
    isNull(removedAtMs),
  );
  const rows = await readAll(
    db.withSession("first-primary"),
    query
      .select({
        ...SHOWN,
        responderProfile: pairTickets.responderProfile,
        confirmedAtMs: pairTickets.confirmedAtMs,
        attempts: pairTickets.notifyAttempts,
        stands: sql<0 | 1>`EXISTS (SELECT 1 FROM ${trustPairs} WHERE ${standing})`.as("stands"),
      })
      .from(pairTickets)
      .where(lte(pairTickets.notifyAtMs, nowMs))
      .orderBy(asc(pairTickets.notifyAtMs))
      .limit(limit),
  );
  return rows.map(({ attempts, stands, ...row }) => ({
    confirmId: confirmed(row.confirmId),
    initiatorDid: row.initiatorDid,
    initiatorProfile: JSON.parse(row.initiatorProfile) as Profile,
    responderDid: confirmed(row.responderDid),
    responderProfile: JSON.parse(confirmed(row.responderProfile)) as Profile,
    confirmedAtMs: confirmed(row.confirmedAtMs),
    attempts,
    stands: stands === 1,
  }));
}

/** A member that every confirmed ticket has (constraint of migration 0002). */
function confirmed<T>(member: T | null): T {
  if (member === null) throw new Error("a ticket with a pending notification was never confirmed");
  return member;
}

/** The notification is in the initiator's queue, or no longer pending. */
export async function settleNotification(db: D1Database, settledId: string): Promise<void> {
  await execute(db, query.update(pairTickets).set({ notifyAtMs: null }).where(eq(confirmId, settledId)));
}

/** Tries the notification again at `notifyAtMs`. */
export async function postponeNotification(db: D1Database, postponedId: string, notifyAtMs: number): Promise<void> {
  await execute(
    db,
    query
      .update(pairTickets)
      .set({ notifyAtMs, notifyAttempts: sql`${pairTickets.notifyAttempts} + 1` })
      .where(and(eq(confirmId, postponedId), isNotNull(pairTickets.notifyAtMs))),
  );
}

/**
 * Forgets tickets a day after they expired; one with a pending notification stays.
 *
 * @returns how many went, at most `limit`
 */
export async function pruneTickets(db: D1Database, nowMs: number, limit: number): Promise<number> {
  const { ticketHash, notifyAtMs } = pairTickets;
  const expired = query
    .select({ ticketHash })
    .from(pairTickets)
    .where(and(lt(expiresAtMs, nowMs - TICKET_RETENTION_MS), isNull(notifyAtMs)))
    .orderBy(asc(expiresAtMs))
    .limit(limit);
  const { meta } = await execute(db, query.delete(pairTickets).where(inArray(ticketHash, expired)));
  return meta.changes;
}
