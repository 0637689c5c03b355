/** What the registry may forget. */
import { and, asc, eq, gt, inArray, lt, notExists, sql } from "drizzle-orm";
import { mostChanged, runBatch } from "../database/batch.ts";
import { aits, registryKeys, tokenFamilies, tokenPairs } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { pruneInvitesStatements } from "./invites.ts";

const DAY_MS = 86_400_000;
/** How long an invite is listed after it has expired. */
const INVITE_RETENTION_MS = 30 * DAY_MS;
/** A list that a retired key has signed may be served for days by a reader that cannot reach us. */
const RETIRED_KEY_RETENTION_MS = 15 * DAY_MS;

/**
 * Deletes identity tokens and token pairs that have been expired for a day; and once none of them is left, families that
 * are left without any and retired signing keys that no unexpired token was signed with. Agents and their keys stay: a DID
 * or key never comes back.
 *
 * @param nowMs milliseconds since 1970
 * @param limit rows of each kind that go at most; signing keys, which the operator makes one by one, go all at once
 * @returns how many went of the kind that lost most; as many as `limit` where there may be more
 */
export async function pruneIdentity(db: D1Database, nowMs: number, limit: number): Promise<number> {
  const tokens = mostChanged(await runBatch(db, tokenStatements(nowMs - DAY_MS, limit)));
  // No index knows which families are empty: they are gone through one by one, so not for each piece of the tokens.
  if (tokens >= limit) return tokens;
  return Math.max(tokens, mostChanged(await runBatch(db, familyStatements(nowMs, limit))));
}

function tokenStatements(beforeMs: number, limit: number): Statement<D1Result>[] {
  const expiredAits = query
    .select({ jti: aits.jti })
    .from(aits)
    .where(lt(aits.expiresAtMs, beforeMs))
    .orderBy(asc(aits.expiresAtMs))
    .limit(limit);
  const expiredPairs = query
    .select({ refreshHash: tokenPairs.refreshHash })
    .from(tokenPairs)
    .where(lt(tokenPairs.refreshExpiresAtMs, beforeMs))
    .orderBy(asc(tokenPairs.refreshExpiresAtMs))
    .limit(limit);
  return [
    query.delete(aits).where(inArray(aits.jti, expiredAits)),
    query.delete(tokenPairs).where(inArray(tokenPairs.refreshHash, expiredPairs)),
    ...pruneInvitesStatements(beforeMs - INVITE_RETENTION_MS, limit),
  ];
}

function familyStatements(nowMs: number, limit: number): Statement<D1Result>[] {
  const pairsOfFamily = query
    .select({ one: sql`1` })
    .from(tokenPairs)
    .where(eq(tokenPairs.familyId, tokenFamilies.familyId));
  const empty = query
    .select({ familyId: tokenFamilies.familyId })
    .from(tokenFamilies)
    .where(and(lt(tokenFamilies.createdAtMs, nowMs - DAY_MS), notExists(pairsOfFamily)))
    .limit(limit);
  const signed = query
    .select({ one: sql`1` })
    .from(aits)
    .where(and(eq(aits.kid, registryKeys.kid), gt(aits.expiresAtMs, nowMs)));
  return [
    query.delete(tokenFamilies).where(inArray(tokenFamilies.familyId, empty)),
    query
      .delete(registryKeys)
      .where(
        and(
          eq(registryKeys.isCurrent, 0),
          lt(registryKeys.retiredAtMs, nowMs - RETIRED_KEY_RETENTION_MS),
          notExists(signed),
        ),
      ),
  ];
}
