/** The pairs of agents that trust each other, in D1: the only store of trust. */
import type { AgentDid } from "../wire/did.ts";
import type { Profile } from "./profile.ts";

/** A pair in the order it is stored in. */
type Ordered = { readonly low: AgentDid; readonly high: AgentDid };

/** What the store says about two agents. Epoch 0: they never paired. */
export type Trust = { readonly trusted: boolean; readonly epoch: number };

/** Whose profile stands on which side is told by the DIDs. */
export type Side = { readonly did: AgentDid; readonly profile: Profile };

export type Peer = { agentDid: AgentDid; agentName: string; since: number };

export type TrustedPair = { agentDid: AgentDid; peerAgentDid: AgentDid; epoch: number; since: number };

const SEPARATOR = "~";

/**
 * Reads at the primary: a pairing that was confirmed a moment ago holds now.
 *
 * @throws Error when D1 fails
 */
export async function lookUpTrust(db: D1Database, a: AgentDid, b: AgentDid): Promise<Trust> {
  if (a === b) return { trusted: false, epoch: 0 };
  const { low, high } = ordered(a, b);
  const row = await db
    .withSession("first-primary")
    .prepare("SELECT epoch, removed_at_ms FROM trust_pairs WHERE low_did = ?1 AND high_did = ?2")
    .bind(low, high)
    .first<{ epoch: number; removed_at_ms: number | null }>();
  return row === null ? { trusted: false, epoch: 0 } : { trusted: row.removed_at_ms === null, epoch: row.epoch };
}

/**
 * Makes trust between the two sides, provided that a ticket was consumed by `confirmId` earlier in the same batch.
 * Pairs that trust each other already get a new epoch and the new profiles.
 */
export function makeTrustStatement(
  db: D1Database,
  made: { confirmId: string; sides: readonly [Side, Side]; nowMs: number },
): D1PreparedStatement {
  const [first, second] = made.sides;
  const { low } = ordered(first.did, second.did);
  const [lowSide, highSide] = low === first.did ? [first, second] : [second, first];
  return db
    .prepare(
      `INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms)
       SELECT ?1, ?2, 1, ?3, ?4, ?5 FROM pair_tickets WHERE confirm_id = ?6
       ON CONFLICT (low_did, high_did) DO UPDATE SET epoch = trust_pairs.epoch + 1, low_profile = excluded.low_profile,
         high_profile = excluded.high_profile, confirmed_at_ms = excluded.confirmed_at_ms, removed_at_ms = NULL, fences_owed = 0`,
    )
    .bind(
      lowSide.did,
      highSide.did,
      JSON.stringify(lowSide.profile),
      JSON.stringify(highSide.profile),
      made.nowMs,
      made.confirmId,
    );
}

/** A removal and what it left behind. `epoch` is null where the two never paired; `removed` is false where nothing was to end. */
export type Removal = { readonly removed: boolean; readonly epoch: number | null };

/** The statements of a removal, for a batch; {@link readRemoval} reads their results. They owe both gates a fence. */
export function removeTrustStatements(
  db: D1Database,
  a: AgentDid,
  b: AgentDid,
  nowMs: number,
): [D1PreparedStatement, D1PreparedStatement] {
  const { low, high } = ordered(a, b);
  return [
    db
      .prepare(
        `UPDATE trust_pairs SET epoch = epoch + 1, removed_at_ms = ?3, fences_owed = 1
         WHERE low_did = ?1 AND high_did = ?2 AND removed_at_ms IS NULL`,
      )
      .bind(low, high, nowMs),
    db.prepare("SELECT epoch FROM trust_pairs WHERE low_did = ?1 AND high_did = ?2").bind(low, high),
  ];
}

export function readRemoval(updated: D1Result | undefined, selected: D1Result | undefined): Removal {
  const row = selected?.results[0] as { epoch: number } | undefined;
  return { removed: (updated?.meta.changes ?? 0) > 0, epoch: row?.epoch ?? null };
}

/** Says that both gates hold the fence of this epoch; a later removal's debt stays. */
export async function settleFences(db: D1Database, a: AgentDid, b: AgentDid, epoch: number): Promise<void> {
  const { low, high } = ordered(a, b);
  await db
    .prepare("UPDATE trust_pairs SET fences_owed = 0 WHERE low_did = ?1 AND high_did = ?2 AND epoch = ?3")
    .bind(low, high, epoch)
    .run();
}

/** Removals whose fences are not known to stand in both gates, oldest first. */
export async function listPendingFences(
  db: D1Database,
  limit: number,
): Promise<{ low: AgentDid; high: AgentDid; epoch: number }[]> {
  const { results } = await db
    .withSession("first-primary")
    .prepare(
      "SELECT low_did AS low, high_did AS high, epoch FROM trust_pairs WHERE fences_owed = 1 ORDER BY removed_at_ms LIMIT ?1",
    )
    .bind(limit)
    .all<{ low: AgentDid; high: AgentDid; epoch: number }>();
  return results;
}

/**
 * The agents that this agent trusts, in the order of their DIDs.
 *
 * @param page at most `limit` (1–1000) after the peer `after`
 */
export async function listPeers(db: D1Database, me: AgentDid, page: { after: string; limit: number }): Promise<Peer[]> {
  const { results } = await db
    .withSession("first-primary")
    .prepare(
      `SELECT did, profile, since FROM (
         SELECT high_did AS did, high_profile AS profile, confirmed_at_ms AS since FROM trust_pairs
         WHERE low_did = ?1 AND high_did > ?2 AND removed_at_ms IS NULL
         UNION ALL
         SELECT low_did, low_profile, confirmed_at_ms FROM trust_pairs
         WHERE high_did = ?1 AND low_did > ?2 AND removed_at_ms IS NULL
       ) ORDER BY did LIMIT ?3`,
    )
    .bind(me, page.after, page.limit)
    .all<{ did: AgentDid; profile: string; since: number }>();
  return results.map((row) => ({
    agentDid: row.did,
    agentName: (JSON.parse(row.profile) as Profile).agentName,
    since: row.since,
  }));
}

/** Every trusted pair, each once, in the order of storage; `cursor` as the last page gave it. */
export async function listTrust(
  db: D1Database,
  page: { cursor: string | null; limit: number },
): Promise<{ pairs: TrustedPair[]; nextCursor: string | null }> {
  const [low = "", high = ""] = (page.cursor ?? "").split(SEPARATOR);
  const { results } = await db
    .prepare(
      `SELECT low_did AS agentDid, high_did AS peerAgentDid, epoch, confirmed_at_ms AS since FROM trust_pairs
       WHERE (low_did, high_did) > (?1, ?2) AND removed_at_ms IS NULL ORDER BY low_did, high_did LIMIT ?3`,
    )
    .bind(low, high, page.limit + 1)
    .all<TrustedPair>();
  const pairs = results.slice(0, page.limit);
  const last = pairs.at(-1);
  const more = results.length > page.limit && last !== undefined;
  return { pairs, nextCursor: more ? last.agentDid + SEPARATOR + last.peerAgentDid : null };
}

function ordered(a: AgentDid, b: AgentDid): Ordered {
  return a < b ? { low: a, high: b } : { low: b, high: a };
}
