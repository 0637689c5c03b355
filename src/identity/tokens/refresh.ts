/** Refreshing an access token, contract §3: the refresh token is used once, a lost answer is answered again, reuse ends the family. */
import { and, desc, eq, exists, inArray, isNull, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import { auditStatement } from "../../audit/entry.ts";
import { agentCaller, authorityEnded } from "../../call/caller.ts";
import { equalHashes, hashSecret } from "../../authority/secrets.ts";
import type { CallContext } from "../../call/context.ts";
import { commitFenced } from "../../database/batch.ts";
import { guard } from "../../database/guard.ts";
import { readFirst } from "../../database/read.ts";
import { tokenFamilies, tokenPairs } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { ATTEMPTS_MAX, contended, REFRESH_REPEAT_MS, type Registry, registryOf } from "../registry.ts";
import { endFamily, insertPair, newTokenPair, type TokenPair } from "./token-pairs.ts";

/** Pairs of one family that are kept. */
export const FAMILY_PAIRS_MAX = 500;
/** Pairs that one refresh forgets: one in the long run, and what an older version has left. */
const FORGOTTEN_AT_ONCE_MAX = 1_000;

/** What is known of a refresh token. */
export type RefreshRow = {
  readonly refreshHash: string;
  readonly familyId: string;
  readonly agentDid: AgentDid;
  /** The agent key that it was handed out to. */
  readonly keyX: string;
  readonly expiresAtMs: number;
  readonly usedAtMs: number | null;
  readonly endedAtMs: number | null;
  readonly familyEndedAtMs: number | null;
  /** The pair handed out last for it. */
  readonly successorHash: string | null;
  readonly successorUsedAtMs: number | null;
};

export type RefreshVerdict =
  | { readonly kind: "first" }
  /** The answer was lost: this successor, unused, gives way to a new one. */
  | { readonly kind: "repeat"; readonly successorHash: string }
  | { readonly kind: "refused"; readonly reason: string }
  /** Somebody holds what they should not: the whole family ends. */
  | { readonly kind: "reuse"; readonly reason: string };

/**
 * Judges one use of a refresh token.
 *
 * @param caller the agent whose proof came with it, and its key
 */
export function judgeRefresh(
  row: RefreshRow | null,
  caller: { agentDid: AgentDid; keyX: string },
  nowMs: number,
): RefreshVerdict {
  if (row === null) return { kind: "refused", reason: "unknown refresh token" };
  if (row.familyEndedAtMs !== null) return { kind: "refused", reason: "the token's family has ended" };
  if (row.agentDid !== caller.agentDid || row.keyX !== caller.keyX)
    return { kind: "reuse", reason: "used by another key" };
  if (row.endedAtMs !== null) {
    return nowMs - row.endedAtMs <= REFRESH_REPEAT_MS
      ? { kind: "refused", reason: "superseded by a repeated refresh" }
      : { kind: "reuse", reason: "used after it was superseded" };
  }
  if (row.usedAtMs === null) {
    return row.expiresAtMs > nowMs ? { kind: "first" } : { kind: "refused", reason: "expired" };
  }
  const isLostAnswer = row.successorUsedAtMs === null && nowMs - row.usedAtMs <= REFRESH_REPEAT_MS;
  if (row.successorHash === null || !isLostAnswer) return { kind: "reuse", reason: "used again" };
  return { kind: "repeat", successorHash: row.successorHash };
}

/** What a refresh hands out. */
export type Refreshed = { access: { token: string; expiresAtMs: number }; refreshToken: string };

/**
 * @param refreshToken as the agent holds it
 * @throws ProxyError PROXY_AUTH_INVALID_TOKEN, which says no more, for every token that is not answered
 */
export async function refreshAccess(ctx: CallContext, refreshToken: string): Promise<Refreshed> {
  const registry = registryOf(ctx);
  const caller = agentCaller(ctx);
  const hash = await hashSecret(refreshToken);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const row = await findRefresh(registry, hash);
    const verdict = judgeRefresh(row, caller, registry.now());
    if (row === null || verdict.kind === "refused") {
      throw refused(verdict.kind === "refused" ? verdict.reason : "unknown refresh token");
    }
    if (verdict.kind === "reuse") {
      await endReusedFamily(ctx, registry, row, verdict.reason);
      throw refused(verdict.reason);
    }
    const pair = await newTokenPair(registry.now());
    const outcome = await commitFenced(registry.db, ctx.authority, [
      guardUnmoved(row, verdict),
      ...supersede(row, verdict, pair),
      insertPair({ familyId: row.familyId, agentDid: row.agentDid, keyX: row.keyX }, pair),
      forgetOldest(row.familyId),
    ]);
    if (outcome.ok) {
      ctx.authority.assertCurrent();
      ctx.log.info("identity.refreshed", { agentDid: row.agentDid, repeated: verdict.kind === "repeat" });
      const { accessToken, accessExpiresAtMs, refreshToken: next } = pair;
      return { access: { token: accessToken, expiresAtMs: accessExpiresAtMs }, refreshToken: next };
    }
    if (outcome.error === "authority-ended") throw authorityEnded(ctx);
  }
  throw contended();
}

/**
 * Keeps of a family's pairs the latest, so that refreshing without end keeps no rows without end. A refresh token as old as those
 * that go is unknown from then on: refused, without ending the family.
 */
function forgetOldest(familyId: string): Statement<D1Result> {
  const ofFamily = eq(tokenPairs.familyId, familyId);
  const oldest = query
    .select({ refreshHash: tokenPairs.refreshHash })
    .from(tokenPairs)
    .where(ofFamily)
    .orderBy(desc(tokenPairs.issuedAtMs), desc(sql`rowid`))
    .limit(FORGOTTEN_AT_ONCE_MAX)
    .offset(FAMILY_PAIRS_MAX);
  return query.delete(tokenPairs).where(inArray(tokenPairs.refreshHash, oldest));
}

const successor = alias(tokenPairs, "successor");

async function findRefresh(registry: Registry, hash: string): Promise<RefreshRow | null> {
  const row = await readFirst(
    registry.db,
    query
      .select({
        refreshHash: tokenPairs.refreshHash,
        familyId: tokenPairs.familyId,
        agentDid: tokenPairs.agentDid,
        keyX: tokenPairs.keyX,
        expiresAtMs: tokenPairs.refreshExpiresAtMs,
        usedAtMs: tokenPairs.usedAtMs,
        endedAtMs: tokenPairs.endedAtMs,
        familyEndedAtMs: sql<number | null>`${tokenFamilies.endedAtMs}`.as("family_ended_at_ms"),
        successorHash: tokenPairs.successorHash,
        successorUsedAtMs: sql<number | null>`${successor.usedAtMs}`.as("successor_used_at_ms"),
      })
      .from(tokenPairs)
      .innerJoin(tokenFamilies, eq(tokenFamilies.familyId, tokenPairs.familyId))
      .leftJoin(successor, eq(successor.refreshHash, tokenPairs.successorHash))
      .where(eq(tokenPairs.refreshHash, hash)),
  );
  return row !== null && equalHashes(row.refreshHash, hash) ? row : null;
}

type Answered = Extract<RefreshVerdict, { kind: "first" | "repeat" }>;

/** Of two uses at once the second finds the first one's successor, and judges anew. */
function guardUnmoved(row: RefreshRow, verdict: Answered): Statement<D1Result> {
  const known = verdict.kind === "repeat" ? verdict.successorHash : null;
  const unmoved = query
    .select({ one: sql`1` })
    .from(tokenPairs)
    .innerJoin(tokenFamilies, and(eq(tokenFamilies.familyId, tokenPairs.familyId), isNull(tokenFamilies.endedAtMs)))
    .leftJoin(successor, eq(successor.refreshHash, tokenPairs.successorHash))
    .where(
      and(
        eq(tokenPairs.refreshHash, row.refreshHash),
        isNull(tokenPairs.endedAtMs),
        sql`${tokenPairs.successorHash} IS ${known}`,
        isNull(successor.usedAtMs),
      ),
    );
  return guard(exists(unmoved));
}

function supersede(row: RefreshRow, verdict: Answered, pair: TokenPair): Statement<D1Result>[] {
  const use = query
    .update(tokenPairs)
    .set({ usedAtMs: sql`COALESCE(${tokenPairs.usedAtMs}, ${pair.issuedAtMs})`, successorHash: pair.refreshHash })
    .where(eq(tokenPairs.refreshHash, row.refreshHash));
  if (verdict.kind === "first") return [use];
  const endLost = query
    .update(tokenPairs)
    .set({ endedAtMs: pair.issuedAtMs })
    .where(eq(tokenPairs.refreshHash, verdict.successorHash));
  return [use, endLost];
}

async function endReusedFamily(ctx: CallContext, registry: Registry, row: RefreshRow, reason: string): Promise<void> {
  const outcome = await commitFenced(registry.db, ctx.authority, [
    endFamily(row.familyId, "refresh token reused", registry.now()),
    auditStatement(ctx, {
      action: "identity.refresh.reuse",
      subject: `agent:${row.agentDid}`,
      agentDid: row.agentDid,
      result: "family ended",
      details: { reason },
    }),
  ]);
  if (!outcome.ok) throw outcome.error === "authority-ended" ? authorityEnded(ctx) : contended();
  ctx.log.warn("identity.refresh.reuse", { agentDid: row.agentDid, reason });
}

function refused(reason: string): ProxyError {
  return new ProxyError("PROXY_AUTH_INVALID_TOKEN", {
    detail: "The refresh token is not accepted; ask the operator to re-key the agent.",
    reason: `refresh refused: ${reason}`,
  });
}
