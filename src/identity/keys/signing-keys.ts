/** The registry's signing keys: which one is current, and which still verify what they signed. */
import { contended } from "../../database/batch.ts";
import { guard } from "../../database/guard.ts";
import { read } from "../../database/read.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { RegistryKey } from "../../wire/registry-documents.ts";
import { newUlid } from "../../wire/ulid.ts";
import type { Registry } from "../registry.ts";
import { type DerivedKey, deriveKey } from "./derivation.ts";

type KeyRow = { kid: string; x: string; status: "active" | "revoked"; is_current: number };

/** @returns a new key pair under a fresh kid. */
export async function newSigningKey(registry: Registry): Promise<DerivedKey> {
  return deriveKey(registry, `key-${newUlid(registry.now())}`);
}

/** @returns the row of the current key; makes the first key when there is none. */
async function currentRow(registry: Registry): Promise<KeyRow> {
  const { db } = registry;
  const select = db.prepare("SELECT kid, x, status, is_current FROM registry_keys WHERE is_current = 1");
  const found = await read(select.first<KeyRow>());
  if (found !== null) return found;
  const first = await newSigningKey(registry);
  // Of two isolates that get here at once the second inserts nothing, and both go on with the first one's key.
  const insert = db
    .prepare(
      `INSERT INTO registry_keys (kid, x, status, is_current, created_at_ms)
       SELECT ?1, ?2, 'active', 1, ?3 WHERE NOT EXISTS (SELECT 1 FROM registry_keys WHERE is_current = 1)`,
    )
    .bind(first.kid, first.x, registry.now());
  const [, current] = await read(db.batch<KeyRow>([insert, select]));
  const row = current?.results[0];
  if (row === undefined) throw contended();
  return row;
}

/**
 * @returns the key that signs now
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when the secret is not the one that the current key came from
 */
export async function currentSigningKey(registry: Registry): Promise<DerivedKey> {
  const row = await currentRow(registry);
  const key = await deriveKey(registry, row.kid);
  if (key.x !== row.x) {
    // Signing with it would make tokens that no reader of the keys document can verify.
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
      reason: `REGISTRY_SIGNING_SECRET is not the one that signing key ${row.kid} was made with; rotate the keys`,
    });
  }
  return key;
}

/** Undoes a batch whose tokens were signed by a key that has been revoked in the meantime. */
export function guardKeyIsActive(registry: Registry, kid: string): D1PreparedStatement {
  return guard(registry.db, "EXISTS (SELECT 1 FROM registry_keys WHERE kid = ?1 AND status = 'active')", kid);
}

/** @returns every key that is still listed, newest first; the first one is made when there is none. */
export async function listSigningKeys(registry: Registry): Promise<RegistryKey[]> {
  const select = registry.db.prepare(
    "SELECT kid, x, status, is_current FROM registry_keys ORDER BY created_at_ms DESC, kid DESC",
  );
  const { results } = await read(select.all<KeyRow>());
  const rows = results.length === 0 ? [await currentRow(registry)] : results;
  return rows.map(({ kid, x, status }) => ({ kid, alg: "EdDSA", crv: "Ed25519", x, status }));
}
