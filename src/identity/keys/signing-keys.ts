/** The registry's signing keys: which one is current, and which still verify what they signed. */
import { and, desc, eq, sql } from "drizzle-orm";
import { runBatch } from "../../database/batch.ts";
import { names } from "../../database/columns.ts";
import { guard } from "../../database/guard.ts";
import { readAll, readFirst } from "../../database/read.ts";
import { registryKeys } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { RegistryKey } from "../../wire/registry-documents.ts";
import { newUlid } from "../../wire/ulid.ts";
import { contended, type Registry } from "../registry.ts";
import { type DerivedKey, deriveKey } from "./derivation.ts";

type KeyRow = typeof registryKeys.$inferSelect;

/** @returns a new key pair under a fresh kid. */
export async function newSigningKey(registry: Registry): Promise<DerivedKey> {
  return deriveKey(registry, `key-${newUlid(registry.now())}`);
}

const CURRENT = query.select().from(registryKeys).where(eq(registryKeys.isCurrent, 1));

/** @returns the row of the current key; makes the first key when there is none. */
async function currentRow(registry: Registry): Promise<KeyRow> {
  const found = await readFirst(registry.db, CURRENT);
  if (found !== null) return found;
  const first = await newSigningKey(registry);
  const { kid, x, status, isCurrent, createdAtMs } = registryKeys;
  // Of two isolates that get here at once the second inserts nothing, and both go on with the first one's key.
  const insert = query.run(
    sql`INSERT INTO ${registryKeys} (${names(kid, x, status, isCurrent, createdAtMs)})
      SELECT ${first.kid}, ${first.x}, 'active', 1, ${registry.now()}
      WHERE NOT EXISTS (SELECT 1 FROM ${registryKeys} WHERE ${eq(isCurrent, 1)})`,
  );
  const [, [current]] = await runBatch(registry.db, [insert, CURRENT]);
  if (current === undefined) throw contended();
  return current;
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
export function guardKeyIsActive(kid: string): Statement<D1Result> {
  const active = and(eq(registryKeys.kid, kid), eq(registryKeys.status, "active"));
  return guard(sql`EXISTS (SELECT 1 FROM ${registryKeys} WHERE ${active})`);
}

/** The statement that makes a key the current one; fails its batch while there is another. */
export function insertCurrentKey(key: DerivedKey, nowMs: number): Statement<D1Result> {
  return query
    .insert(registryKeys)
    .values({ kid: key.kid, x: key.x, status: "active", isCurrent: 1, createdAtMs: nowMs });
}

/** @returns every key that is still listed, newest first; the first one is made when there is none. */
export async function listSigningKeys(registry: Registry): Promise<RegistryKey[]> {
  const newestFirst = [desc(registryKeys.createdAtMs), desc(registryKeys.kid)];
  const listed = await readAll(
    registry.db,
    query
      .select()
      .from(registryKeys)
      .orderBy(...newestFirst),
  );
  const rows = listed.length === 0 ? [await currentRow(registry)] : listed;
  return rows.map(({ kid, x, status }) => ({ kid, alg: "EdDSA", crv: "Ed25519", x, status }));
}
