/** Access and refresh tokens: made in pairs, kept as hashes, judged by one row and the family it belongs to. */
import { equalHashes, hashSecret, newSecret, SECRET_PREFIXES } from "../../authority/secrets.ts";
import { read } from "../../database/read.ts";
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
export function insertFamily(registry: Registry, holder: PairHolder, pair: TokenPair): D1PreparedStatement[] {
  return [
    registry.db
      .prepare("INSERT INTO token_families (family_id, agent_did, created_at_ms) VALUES (?1, ?2, ?3)")
      .bind(holder.familyId, holder.agentDid, pair.issuedAtMs),
    insertPair(registry, holder, pair),
  ];
}

/** @returns the name of a new family. */
export function newFamilyId(registry: Registry): string {
  return newUlid(registry.now());
}

/** Adds a pair to its family. */
export function insertPair(registry: Registry, holder: PairHolder, pair: TokenPair): D1PreparedStatement {
  return registry.db
    .prepare(
      `INSERT INTO token_pairs (refresh_hash, access_hash, family_id, agent_did, key_x, issued_at_ms, access_expires_at_ms, refresh_expires_at_ms)
       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`,
    )
    .bind(
      pair.refreshHash,
      pair.accessHash,
      holder.familyId,
      holder.agentDid,
      holder.keyX,
      pair.issuedAtMs,
      pair.accessExpiresAtMs,
      pair.refreshExpiresAtMs,
    );
}

/** Ends every token of an agent that is not ended yet. */
export function endFamiliesOf(registry: Registry, agentDid: AgentDid, reason: string): D1PreparedStatement {
  return registry.db
    .prepare(
      "UPDATE token_families SET ended_at_ms = ?2, ended_reason = ?3 WHERE agent_did = ?1 AND ended_at_ms IS NULL",
    )
    .bind(agentDid, registry.now(), reason);
}

/** Ends one family. */
export function endFamily(registry: Registry, familyId: string, reason: string): D1PreparedStatement {
  return registry.db
    .prepare(
      "UPDATE token_families SET ended_at_ms = ?2, ended_reason = ?3 WHERE family_id = ?1 AND ended_at_ms IS NULL",
    )
    .bind(familyId, registry.now(), reason);
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
  const nowMs = registry.now();
  const select = registry.db
    .prepare(
      `SELECT pair.access_hash FROM token_pairs AS pair
         JOIN token_families AS family ON family.family_id = pair.family_id AND family.ended_at_ms IS NULL
         JOIN agents AS agent ON agent.agent_did = pair.agent_did AND agent.revoked_at_ms IS NULL
         JOIN aits AS ait ON ait.jti = ?3 AND ait.agent_did = pair.agent_did AND ait.revoked_at_ms IS NULL AND ait.expires_at_ms > ?4
       WHERE pair.access_hash = ?1 AND pair.agent_did = ?2 AND pair.ended_at_ms IS NULL AND pair.access_expires_at_ms > ?4`,
    )
    .bind(hash, claim.agentDid, claim.aitJti, nowMs);
  const stored = await read(select.first<string>("access_hash"));
  return stored !== null && equalHashes(stored, hash);
}
