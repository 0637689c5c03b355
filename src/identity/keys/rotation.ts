/** The operator's two operations on signing keys. */
import { auditStatement } from "../../audit/entry.ts";
import type { CallContext } from "../../call/context.ts";
import { commit, contended } from "../../database/batch.ts";
import { guard } from "../../database/guard.ts";
import { read } from "../../database/read.ts";
import { ProxyError } from "../../wire/problem.ts";
import { ATTEMPTS_MAX, type Registry, registryOf, SIGNING_KEYS_MAX } from "../registry.ts";
import type { DerivedKey } from "./derivation.ts";
import { newSigningKey } from "./signing-keys.ts";

/**
 * Makes a new current key. The old one stays valid for what it signed until it is revoked.
 *
 * @throws ProxyError PROXY_CONFLICT when too many keys are kept already
 */
export async function rotateSigningKey(ctx: CallContext): Promise<{ kid: string; previousKid: string | null }> {
  const registry = registryOf(ctx);
  const count = await read(registry.db.prepare("SELECT count(*) AS kept FROM registry_keys").first<number>("kept"));
  if ((count ?? 0) >= SIGNING_KEYS_MAX) {
    throw new ProxyError("PROXY_CONFLICT", {
      detail: "Too many signing keys are kept; wait until old ones have expired.",
    });
  }
  const key = await newSigningKey(registry);
  ctx.authority.assertCurrent();
  const outcome = await commit(registry.db, [
    ...ctx.authority.fence(registry.db),
    registry.db
      .prepare("UPDATE registry_keys SET is_current = 0, retired_at_ms = ?1 WHERE is_current = 1 RETURNING kid")
      .bind(registry.now()),
    insertCurrent(registry, key),
    auditStatement(ctx, {
      action: "identity.keys.rotate",
      subject: `signing_key:${key.kid}`,
      agentDid: null,
      result: "ok",
    }),
  ]);
  if (!outcome.ok) throw contended();
  const retired = outcome.value.at(-3)?.results[0] as { kid: string } | undefined;
  ctx.log.info("identity.keys.rotated", { kid: key.kid, previousKid: retired?.kid ?? null });
  return { kid: key.kid, previousKid: retired?.kid ?? null };
}

/**
 * Ends a key: nothing it signed verifies once the keys document has been read again. Revoking the current key makes its
 * successor in the same commit, so that the registry never stands without one. Repeating it changes nothing.
 *
 * @throws ProxyError PROXY_NOT_FOUND for a kid that is not listed
 */
export async function revokeSigningKey(
  ctx: CallContext,
  kid: string,
): Promise<{ kid: string; revokedAtMs: number; currentKid: string }> {
  const registry = registryOf(ctx);
  const { db } = registry;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const rows = await read(
      db
        .prepare("SELECT kid, is_current, revoked_at_ms FROM registry_keys WHERE kid = ?1 OR is_current = 1")
        .bind(kid)
        .all<{ kid: string; is_current: number; revoked_at_ms: number | null }>(),
    );
    const target = rows.results.find((row) => row.kid === kid);
    const current = rows.results.find((row) => row.is_current === 1);
    if (target === undefined) throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such signing key" });
    if (target.revoked_at_ms !== null && current !== undefined) {
      return { kid, revokedAtMs: target.revoked_at_ms, currentKid: current.kid };
    }
    const successor = target.is_current === 1 || current === undefined ? await newSigningKey(registry) : null;
    const nowMs = registry.now();
    ctx.authority.assertCurrent();
    const outcome = await commit(db, [
      ...ctx.authority.fence(db),
      guard(db, "(SELECT kid FROM registry_keys WHERE is_current = 1) IS ?1", current?.kid ?? null),
      guard(db, "EXISTS (SELECT 1 FROM registry_keys WHERE kid = ?1 AND revoked_at_ms IS NULL)", kid),
      db
        .prepare(
          `UPDATE registry_keys SET status = 'revoked', is_current = 0, revoked_at_ms = ?2,
             retired_at_ms = COALESCE(retired_at_ms, ?2) WHERE kid = ?1`,
        )
        .bind(kid, nowMs),
      ...(successor === null ? [] : [insertCurrent(registry, successor)]),
      auditStatement(ctx, {
        action: "identity.keys.revoke",
        subject: `signing_key:${kid}`,
        agentDid: null,
        result: "ok",
        details: { successorKid: successor?.kid ?? null },
      }),
    ]);
    if (outcome.ok) {
      const currentKid = successor?.kid ?? current?.kid ?? kid;
      ctx.log.warn("identity.keys.revoked", { kid, currentKid });
      return { kid, revokedAtMs: nowMs, currentKid };
    }
  }
  throw contended();
}

function insertCurrent(registry: Registry, key: DerivedKey): D1PreparedStatement {
  return registry.db
    .prepare("INSERT INTO registry_keys (kid, x, status, is_current, created_at_ms) VALUES (?1, ?2, 'active', 1, ?3)")
    .bind(key.kid, key.x, registry.now());
}
