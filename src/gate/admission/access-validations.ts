/** An agent's last good access validations and its owner: the second level of the chain's cache. */
import { readText, writeMeta } from "../../database/meta.ts";

/** A validation is written again only when it is this much newer: once a refresh, not once a request. */
const VALIDATION_RESOLUTION_MS = 10_000;

/** The agent's last good access validations and its owner: the second level of the chain's cache. Mirrored in memory. */
export type AccessValidations = ReturnType<typeof createAccessValidations>;

export function createAccessValidations(sql: SqlStorage) {
  let ownerDid = readText(sql, "owner_did");
  const validatedAtMs = new Map<string, number>(
    sql
      .exec<{ key_hash: string; validated_at_ms: number }>("SELECT key_hash, validated_at_ms FROM access_validations")
      .toArray()
      .map((row) => [row.key_hash, row.validated_at_ms]),
  );

  return {
    ownerDid: (): string | null => ownerDid,
    validatedAtMs: (keyHash: string): number | null => validatedAtMs.get(keyHash) ?? null,

    /** Part of the caller's transaction. Should that be undone, the next request after a waking writes it again. */
    recordOwner(owner: string): void {
      if (ownerDid === owner) return;
      ownerDid = owner;
      writeMeta(sql, "owner_did", owner);
    },

    validated(keyHash: string, atMs: number): void {
      const known = validatedAtMs.get(keyHash);
      if (known !== undefined && known >= atMs - VALIDATION_RESOLUTION_MS) return;
      validatedAtMs.set(keyHash, atMs);
      sql.exec(
        "INSERT INTO access_validations (key_hash, validated_at_ms) VALUES (?, ?) ON CONFLICT (key_hash) DO UPDATE SET validated_at_ms = excluded.validated_at_ms",
        keyHash,
        atMs,
      );
    },

    /** Forgets validations too old to vouch for anything. */
    prune(olderThanMs: number): void {
      for (const [keyHash, atMs] of validatedAtMs) if (atMs < olderThanMs) validatedAtMs.delete(keyHash);
      sql.exec("DELETE FROM access_validations WHERE validated_at_ms < ?", olderThanMs);
    },
  };
}
