/** An agent's last good access validations, its owner and its name: the second level of the chain's cache. */
import { readText, writeMeta } from "../../database/meta.ts";

/** A validation is written again only when it is this much newer: once a refresh, not once a request. */
const VALIDATION_RESOLUTION_MS = 10_000;

/** What the gate remembers of its agent beside its authority. Mirrored in memory; writes are part of the caller's transaction. */
export type AccessValidations = {
  /** The DID of the agent's owner, or null before its first verified request. */
  ownerDid(): string | null;
  /** The agent's name by its newest identity token, or null before its first verified request. */
  agentName(): string | null;
  /** When an access token, by its hash, was last found valid (ms since the epoch), or null. */
  validatedAtMs(keyHash: string): number | null;
  /** Should the transaction be undone, the next request after a waking writes it again. */
  recordOwner(owner: string): void;
  /** Likewise. */
  recordName(name: string): void;
  /** Records a validation that is at least 10 s newer than the one that is kept. */
  validated(keyHash: string, atMs: number): void;
  /** Forgets validations too old to vouch for anything. */
  prune(olderThanMs: number): void;
};

/** @returns the validations of one gate. */
export function createAccessValidations(sql: SqlStorage): AccessValidations {
  let ownerDid = readText(sql, "owner_did");
  let agentName = readText(sql, "agent_name");
  const validatedAtMs = new Map<string, number>(
    sql
      .exec<{ key_hash: string; validated_at_ms: number }>("SELECT key_hash, validated_at_ms FROM access_validations")
      .toArray()
      .map((row) => [row.key_hash, row.validated_at_ms]),
  );

  return {
    ownerDid: () => ownerDid,
    agentName: () => agentName,
    validatedAtMs: (keyHash) => validatedAtMs.get(keyHash) ?? null,

    recordOwner(owner) {
      if (ownerDid === owner) return;
      ownerDid = owner;
      writeMeta(sql, "owner_did", owner);
    },

    recordName(name) {
      if (agentName === name) return;
      agentName = name;
      writeMeta(sql, "agent_name", name);
    },

    validated(keyHash, atMs) {
      const known = validatedAtMs.get(keyHash);
      if (known !== undefined && known >= atMs - VALIDATION_RESOLUTION_MS) return;
      validatedAtMs.set(keyHash, atMs);
      sql.exec(
        "INSERT INTO access_validations (key_hash, validated_at_ms) VALUES (?, ?) ON CONFLICT (key_hash) DO UPDATE SET validated_at_ms = excluded.validated_at_ms",
        keyHash,
        atMs,
      );
    },

    prune(olderThanMs) {
      for (const [keyHash, atMs] of validatedAtMs) if (atMs < olderThanMs) validatedAtMs.delete(keyHash);
      sql.exec("DELETE FROM access_validations WHERE validated_at_ms < ?", olderThanMs);
    },
  };
}
