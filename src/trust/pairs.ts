/** The pairs of agents that trust each other, in D1: the only store of trust. */
import { and, asc, eq, gt, isNull, lte, sql } from "drizzle-orm";
import { unionAll } from "drizzle-orm/sqlite-core";
import { excluded, names } from "../database/columns.ts";
import { execute, readAll, readFirst } from "../database/read.ts";
import { pairTickets, trustPairs } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import type { AgentDid } from "../wire/did.ts";
import type { Profile } from "./profile.ts";

/** What the store says about two agents. Epoch 0: they never paired. */
export type Trust = { readonly trusted: boolean; readonly epoch: number };

/** The order of the DIDs says whose profile stands on which side. */
export type Side = { readonly did: AgentDid; readonly profile: Profile };

/** One that an agent trusts, since a moment in milliseconds since 1970. */
export type Peer = { agentDid: AgentDid; agentName: string; since: number };

/** A pair that trusts each other, under its epoch. */
export type TrustedPair = { agentDid: AgentDid; peerAgentDid: AgentDid; epoch: number; since: number };

const SEPARATOR = "~";
/** A removal places its fences itself; after this time housekeeping does. */
export const FENCES_GRACE_MS = 15_000;

/**
 * Reads at the primary: a pairing that was confirmed a moment ago holds now.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function lookUpTrust(db: D1Database, a: AgentDid, b: AgentDid): Promise<Trust> {
  if (a === b) return { trusted: false, epoch: 0 };
  const { epoch, removedAtMs } = trustPairs;
  const select = query.select({ epoch, removedAtMs }).from(trustPairs).where(isPair(a, b));
  const row = await readFirst(db.withSession("first-primary"), select);
  return row === null ? { trusted: false, epoch: 0 } : { trusted: row.removedAtMs === null, epoch: row.epoch };
}

/**
 * Makes trust between the two sides, provided that a ticket was consumed by `confirmId` earlier in the same batch.
 * Pairs that trust each other already get a new epoch and the new profiles.
 */
export function makeTrustStatement(made: {
  confirmId: string;
  sides: readonly [Side, Side];
  nowMs: number;
}): Statement<D1Result> {
  const [first, second] = made.sides;
  const { low } = ordered(first.did, second.did);
  const [lowSide, highSide] = low === first.did ? [first, second] : [second, first];
  const { lowDid, highDid, epoch, lowProfile, highProfile, confirmedAtMs, removedAtMs, fencesOwed } = trustPairs;
  return query.run(sql`
    INSERT INTO ${trustPairs} (${names(lowDid, highDid, epoch, lowProfile, highProfile, confirmedAtMs)})
    SELECT ${lowSide.did}, ${highSide.did}, 1, ${JSON.stringify(lowSide.profile)}, ${JSON.stringify(highSide.profile)},
      ${made.nowMs} FROM ${pairTickets} WHERE ${eq(pairTickets.confirmId, made.confirmId)}
    ON CONFLICT (${names(lowDid, highDid)}) DO UPDATE SET ${names(epoch)} = ${epoch} + 1,
      ${names(lowProfile)} = ${excluded(lowProfile)}, ${names(highProfile)} = ${excluded(highProfile)},
      ${names(confirmedAtMs)} = ${excluded(confirmedAtMs)}, ${names(removedAtMs)} = NULL, ${names(fencesOwed)} = 0`);
}

/**
 * The statements of a removal, for a batch: the first changes a row where there was trust to end, the second selects the epoch
 * of the pair where it ever was one. They leave a fence pending for both gates.
 */
export function removeTrustStatements(
  a: AgentDid,
  b: AgentDid,
  nowMs: number,
): [Statement<D1Result>, Statement<{ epoch: number }[]>] {
  return [
    query
      .update(trustPairs)
      .set({
        epoch: sql`${trustPairs.epoch} + 1`,
        removedAtMs: nowMs,
        fencesOwed: 1,
        fencesDueAtMs: nowMs + FENCES_GRACE_MS,
        fencesAttempts: 0,
      })
      .where(and(isPair(a, b), isNull(trustPairs.removedAtMs))),
    query.select({ epoch: trustPairs.epoch }).from(trustPairs).where(isPair(a, b)),
  ];
}

/** Says that both gates hold the fence of this epoch; one of a later removal stays pending. */
export async function settleFences(db: D1Database, a: AgentDid, b: AgentDid, epoch: number): Promise<void> {
  await execute(
    db,
    query
      .update(trustPairs)
      .set({ fencesOwed: 0 })
      .where(and(isPair(a, b), eq(trustPairs.epoch, epoch))),
  );
}

/** Fences of a removal that are not known to stand in both gates. */
export type PendingFences = { low: AgentDid; high: AgentDid; epoch: number; attempts: number };

/** Pending fences that are due, the longest due first. */
export async function listPendingFences(db: D1Database, nowMs: number, limit: number): Promise<PendingFences[]> {
  const { lowDid, highDid, epoch, fencesOwed, fencesDueAtMs, fencesAttempts } = trustPairs;
  return readAll(
    db.withSession("first-primary"),
    query
      .select({ low: lowDid, high: highDid, epoch, attempts: fencesAttempts })
      .from(trustPairs)
      .where(and(eq(fencesOwed, 1), lte(fencesDueAtMs, nowMs)))
      .orderBy(asc(fencesDueAtMs))
      .limit(limit),
  );
}

/** Places pending fences again at `dueAtMs`; those of a later removal are left as they are. */
export async function postponeFences(db: D1Database, pending: PendingFences, dueAtMs: number): Promise<void> {
  await execute(
    db,
    query
      .update(trustPairs)
      .set({ fencesDueAtMs: dueAtMs, fencesAttempts: pending.attempts + 1 })
      .where(and(isPair(pending.low, pending.high), eq(trustPairs.epoch, pending.epoch))),
  );
}

/**
 * The agents that this agent trusts, in the order of their DIDs.
 *
 * @param page at most `limit` (1–1000) after the peer `after`
 */
export async function listPeers(db: D1Database, me: AgentDid, page: { after: string; limit: number }): Promise<Peer[]> {
  const { lowDid, highDid, lowProfile, highProfile, confirmedAtMs, removedAtMs } = trustPairs;
  const after = page.after as AgentDid;
  const asLow = query
    .select({ did: highDid, profile: highProfile, since: confirmedAtMs })
    .from(trustPairs)
    .where(and(eq(lowDid, me), gt(highDid, after), isNull(removedAtMs)));
  const asHigh = query
    .select({ did: lowDid, profile: lowProfile, since: confirmedAtMs })
    .from(trustPairs)
    .where(and(eq(highDid, me), gt(lowDid, after), isNull(removedAtMs)));
  const both = unionAll(asLow, asHigh)
    .orderBy(sql`1`)
    .limit(page.limit);
  const rows = await readAll(db.withSession("first-primary"), both);
  return rows.map(({ did, profile, since }) => ({
    agentDid: did,
    agentName: (JSON.parse(profile) as Profile).agentName,
    since,
  }));
}

/** Every trusted pair, each once, in the order of storage; `cursor` as the last page gave it. */
export async function listTrust(
  db: D1Database,
  page: { cursor: string | null; limit: number },
): Promise<{ pairs: TrustedPair[]; nextCursor: string | null }> {
  const [low = "", high = ""] = (page.cursor ?? "").split(SEPARATOR);
  const { lowDid, highDid, epoch, confirmedAtMs, removedAtMs } = trustPairs;
  const found = await readAll(
    db,
    query
      .select({ agentDid: lowDid, peerAgentDid: highDid, epoch, since: confirmedAtMs })
      .from(trustPairs)
      .where(and(sql`(${lowDid}, ${highDid}) > (${low}, ${high})`, isNull(removedAtMs)))
      .orderBy(asc(lowDid), asc(highDid))
      .limit(page.limit + 1),
  );
  const pairs = found.slice(0, page.limit);
  const last = pairs.at(-1);
  const more = found.length > page.limit && last !== undefined;
  return { pairs, nextCursor: more ? last.agentDid + SEPARATOR + last.peerAgentDid : null };
}

function isPair(a: AgentDid, b: AgentDid) {
  const { low, high } = ordered(a, b);
  return and(eq(trustPairs.lowDid, low), eq(trustPairs.highDid, high));
}

/** Two agents in the order that a pair is stored in. */
function ordered(a: AgentDid, b: AgentDid): { readonly low: AgentDid; readonly high: AgentDid } {
  return a < b ? { low: a, high: b } : { low: b, high: a };
}
