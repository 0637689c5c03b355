/** The registry's signing keys: which one is current, and which still verify what they signed. */
import { and, desc, eq, sql } from "drizzle-orm";
import { names } from "../../database/columns.ts";
import { guard } from "../../database/guard.ts";
import { readAll, readFirst } from "../../database/read.ts";
import { registryKeys } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { RegistryKey } from "../../wire/registry-documents.ts";
import { newUlid } from "../../wire/ulid.ts";
import type { Registry } from "../registry.ts";
import { type DerivedKey, deriveKey } from "./derivation.ts";

/** @returns a new key pair under a fresh kid. */
export async function newSigningKey(registry: Registry): Promise<DerivedKey> {
  return deriveKey(registry, `key-${newUlid(registry.now())}`);
}

/** The name of the first key. It follows from the secret like every other, so it needs no row before it signs something. */
const FIRST_KID = "key-00000000000000000000000000";

/**
 * Reads alone: while the registry has issued nothing it has no row, and its first key is the one that the secret makes.
 *
 * @returns the key that signs now
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when the secret is not the one that the current key came from
 */
export async function currentSigningKey(registry: Registry): Promise<DerivedKey> {
  const row = await readFirst(registry.db, query.select().from(registryKeys).where(eq(registryKeys.isCurrent, 1)));
  if (row === null) return firstSigningKey(registry);
  const key = await deriveKey(registry, row.kid);
  if (key.x !== row.x) {
    // Signing with it would make tokens that no reader of the keys document can verify.
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
      reason: `REGISTRY_SIGNING_SECRET is not the one that signing key ${row.kid} was made with; rotate the keys`,
    });
  }
  return key;
}

/**
 * What a batch begins with that hands out something signed: the first key gets its row, and the batch is undone where its key has
 * been revoked in the meantime.
 */
export function signedByStatements(key: DerivedKey, nowMs: number): Statement<D1Result>[] {
  const active = and(eq(registryKeys.kid, key.kid), eq(registryKeys.status, "active"));
  const guarded = guard(sql`EXISTS (SELECT 1 FROM ${registryKeys} WHERE ${active})`);
  return key.kid === FIRST_KID ? [firstKeyStatement(key, nowMs), guarded] : [guarded];
}

/** @returns the key that signs while the registry has no row */
export function firstSigningKey(registry: Registry): Promise<DerivedKey> {
  return deriveKey(registry, FIRST_KID);
}

/** Gives the first key its row. Of any number of these at once one inserts, while the registry has no key at all. */
export function firstKeyStatement(first: DerivedKey, nowMs: number): Statement<D1Result> {
  const { kid, x, status, isCurrent, createdAtMs } = registryKeys;
  return query.run(
    sql`INSERT INTO ${registryKeys} (${names(kid, x, status, isCurrent, createdAtMs)})
      SELECT ${first.kid}, ${first.x}, 'active', 1, ${nowMs} WHERE NOT EXISTS (SELECT 1 FROM ${registryKeys})`,
  );
}

/** The statement that makes a key the current one; fails its batch while there is another. */
export function insertCurrentKey(key: DerivedKey, nowMs: number): Statement<D1Result> {
  return query
    .insert(registryKeys)
    .values({ kid: key.kid, x: key.x, status: "active", isCurrent: 1, createdAtMs: nowMs });
}

/** @returns every key that is still listed, newest first. Reads alone, as {@link currentSigningKey} does. */
export async function listSigningKeys(registry: Registry): Promise<RegistryKey[]> {
  const newestFirst = [desc(registryKeys.createdAtMs), desc(registryKeys.kid)];
  const rows = await readAll(
    registry.db,
    query
      .select()
      .from(registryKeys)
      .orderBy(...newestFirst),
  );
  if (rows.length > 0) return rows.map(({ kid, x, status }) => ({ kid, alg: "EdDSA", crv: "Ed25519", x, status }));
  const { kid, x } = await firstSigningKey(registry);
  return [{ kid, alg: "EdDSA", crv: "Ed25519", x, status: "active" }];
}
