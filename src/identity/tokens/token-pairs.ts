/** Access and refresh tokens: made in pairs, kept as hashes, judged by one row and the family it belongs to. */
import { and, eq, gt, isNull, sql } from "drizzle-orm";
import { equalHashes, hashSecret, newSecret, SECRET_PREFIXES } from "../../authority/secrets.ts";
import { readFirst } from "../../database/read.ts";
import { agents, aits, tokenFamilies, tokenPairs } from "../../database/schema.ts";
import { preparedStatement, query, type Statement } from "../../database/statement.ts";
import type { AgentDid } from "../../wire/did.ts";
import { newUlid } from "../../wire/ulid.ts";
import { ACCESS_TOKEN_TTL_MS, REFRESH_TOKEN_TTL_MS, type Registry } from "../registry.ts";

const TOKEN_MAX_LENGTH = 64;

/** A fresh pair; the tokens are shown once and kept as hashes. */
export type TokenPair = {
  readonly accessToken: string;
  readonly accessExpiresAtMs: number;
  readonly refreshToken: string;
  readonly refreshExpiresAtMs: number;
  readonly accessHash: string;
  readonly refreshHash: string;
  readonly issuedAtMs: number;
};

/** Whom a pair is handed out to. */
export type PairHolder = { readonly familyId: string; readonly agentDid: AgentDid; readonly keyX: string };

/** @returns a pair nobody has seen. */
export async function newTokenPair(nowMs: number): Promise<TokenPair> {
  const accessToken = newSecret(SECRET_PREFIXES.access);
  const refreshToken = newSecret(SECRET_PREFIXES.refresh);
  return {
    accessToken,
    accessExpiresAtMs: nowMs + ACCESS_TOKEN_TTL_MS,
    refreshToken,
    refreshExpiresAtMs: nowMs + REFRESH_TOKEN_TTL_MS,
    accessHash: await hashSecret(accessToken),
    refreshHash: await hashSecret(refreshToken),
    issuedAtMs: nowMs,
  };
}

/** Begins a family with its first pair. */
export function insertFamily(holder: PairHolder, pair: TokenPair): Statement<D1Result>[] {
  const { familyId, agentDid } = holder;
  return [
    query.insert(tokenFamilies).values({ familyId, agentDid, createdAtMs: pair.issuedAtMs }),
    insertPair(holder, pair),
  ];
}

/** @returns the name of a new family. */
export function newFamilyId(registry: Registry): string {
  return newUlid(registry.now());
}

/** Adds a pair to its family. */
export function insertPair(holder: PairHolder, pair: TokenPair): Statement<D1Result> {
  const { refreshHash, accessHash, issuedAtMs, accessExpiresAtMs, refreshExpiresAtMs } = pair;
  return query
    .insert(tokenPairs)
    .values({ ...holder, refreshHash, accessHash, issuedAtMs, accessExpiresAtMs, refreshExpiresAtMs });
}

/** Ends every token of an agent that is not ended yet. */
export function endFamiliesOf(agentDid: AgentDid, reason: string, nowMs: number): Statement<D1Result> {
  return query
    .update(tokenFamilies)
    .set({ endedAtMs: nowMs, endedReason: reason })
    .where(and(eq(tokenFamilies.agentDid, agentDid), isNull(tokenFamilies.endedAtMs)));
}

/** Ends one family. */
export function endFamily(familyId: string, reason: string, nowMs: number): Statement<D1Result> {
  return query
    .update(tokenFamilies)
    .set({ endedAtMs: nowMs, endedReason: reason })
    .where(and(eq(tokenFamilies.familyId, familyId), isNull(tokenFamilies.endedAtMs)));
}

/**
 * Judges an access token.
 *
 * @param claim the token, the agent it is said to be of, and the identity token it came with
 * @returns whether both are that agent's, unexpired, and not ended
 */
export async function isAccessValid(
  registry: Registry,
  claim: { token: string; agentDid: string; aitJti: string },
): Promise<boolean> {
  if (!claim.token.startsWith(SECRET_PREFIXES.access) || claim.token.length > TOKEN_MAX_LENGTH) return false;
  const hash = await hashSecret(claim.token);
  const found = await readFirst(
    registry.db,
    validAccess({ hash, agentDid: claim.agentDid, jti: claim.aitJti, nowMs: registry.now() }),
  );
  return found !== null && equalHashes(found.accessHash, hash);
}

/** What every request of an agent asks of its registry: written once for the isolate. */
const validAccess = preparedStatement(() => {
  const { placeholder } = sql;
  const [pair, ait] = [tokenPairs, aits];
  return query
    .select({ accessHash: pair.accessHash })
    .from(pair)
    .innerJoin(tokenFamilies, and(eq(tokenFamilies.familyId, pair.familyId), isNull(tokenFamilies.endedAtMs)))
    .innerJoin(agents, and(eq(agents.agentDid, pair.agentDid), isNull(agents.revokedAtMs)))
    .innerJoin(
      ait,
      and(
        eq(ait.jti, placeholder("jti")),
        eq(ait.agentDid, pair.agentDid),
        isNull(ait.revokedAtMs),
        gt(ait.expiresAtMs, placeholder("nowMs")),
      ),
    )
    .where(
      and(
        eq(pair.accessHash, placeholder("hash")),
        eq(pair.agentDid, placeholder("agentDid")),
        isNull(pair.endedAtMs),
        gt(pair.accessExpiresAtMs, placeholder("nowMs")),
      ),
    );
});
