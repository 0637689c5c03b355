/** The operator's two operations on signing keys. */
import { and, count, eq, isNull, or, sql } from "drizzle-orm";
import { auditStatement } from "../../audit/entry.ts";
import { commitUnder } from "../../call/caller.ts";
import type { CallContext } from "../../call/context.ts";
import { commitFenced } from "../../database/batch.ts";
import { guard } from "../../database/guard.ts";
import { readAll, readFirst } from "../../database/read.ts";
import { registryKeys } from "../../database/schema.ts";
import { query } from "../../database/statement.ts";
import { ProxyError } from "../../wire/problem.ts";
import { ATTEMPTS_MAX, contended, type Registry, registryOf, SIGNING_KEYS_MAX } from "../registry.ts";
import { firstKeyStatement, firstSigningKey, insertCurrentKey, newSigningKey } from "./signing-keys.ts";

/**
 * Makes a new current key. The old one stays valid for what it signed until it is revoked.
 *
 * @throws ProxyError PROXY_CONFLICT when too many keys are kept already
 */
export async function rotateSigningKey(ctx: CallContext): Promise<{ kid: string; previousKid: string | null }> {
  const registry = registryOf(ctx);
  await keepFirstKey(ctx, registry);
  const counted = await readFirst(registry.db, query.select({ kept: count() }).from(registryKeys));
  if ((counted?.kept ?? 0) >= SIGNING_KEYS_MAX) {
    throw new ProxyError("PROXY_CONFLICT", {
      detail: "Too many signing keys are kept; wait until old ones have expired.",
    });
  }
  const key = await newSigningKey(registry);
  const nowMs = registry.now();
  const committed = await commitFenced(registry.db, ctx.authority, [
    query
      .update(registryKeys)
      .set({ isCurrent: 0, retiredAtMs: nowMs })
      .where(eq(registryKeys.isCurrent, 1))
      .returning({ kid: registryKeys.kid }),
    insertCurrentKey(key, nowMs),
    auditStatement(ctx, {
      action: "identity.keys.rotate",
      subject: `signing_key:${key.kid}`,
      agentDid: null,
      result: "ok",
    }),
  ]);
  if (!committed.ok) throw contended();
  const previousKid = committed.value[0][0]?.kid ?? null;
  ctx.log.info("identity.keys.rotated", { kid: key.kid, previousKid });
  return { kid: key.kid, previousKid };
}

/** What a revocation of a key answers. */
export type RevokedKey = { kid: string; revokedAtMs: number; currentKid: string };

/**
 * Ends a key: nothing it signed verifies once the keys document has been read again. Revoking the current key makes its
 * successor in the same commit, so that the registry never stands without one. Repeating it changes nothing.
 *
 * @throws ProxyError PROXY_NOT_FOUND for a kid that is not listed
 */
export async function revokeSigningKey(ctx: CallContext, kid: string): Promise<RevokedKey> {
  await keepFirstKey(ctx, registryOf(ctx));
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    // oxlint-disable-next-line no-await-in-loop -- each attempt judges by what the one before has left
    const revoked = await tryToRevoke(ctx, kid);
    if (revoked !== null) return revoked;
  }
  throw contended();
}

/** @returns null where other keys held at the commit than were read */
async function tryToRevoke(ctx: CallContext, kid: string): Promise<RevokedKey | null> {
  const registry = registryOf(ctx);
  const rows = await readAll(
    registry.db,
    query
      .select()
      .from(registryKeys)
      .where(or(eq(registryKeys.kid, kid), eq(registryKeys.isCurrent, 1))),
  );
  const target = rows.find((row) => row.kid === kid);
  const current = rows.find((row) => row.isCurrent === 1);
  if (target === undefined) throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such signing key" });
  if (target.revokedAtMs !== null && current !== undefined) {
    return { kid, revokedAtMs: target.revokedAtMs, currentKid: current.kid };
  }
  const successor = target.isCurrent === 1 || current === undefined ? await newSigningKey(registry) : null;
  const nowMs = registry.now();
  const unrevoked = and(eq(registryKeys.kid, kid), isNull(registryKeys.revokedAtMs));
  const committed = await commitFenced(registry.db, ctx.authority, [
    guard(
      sql`(SELECT ${registryKeys.kid} FROM ${registryKeys} WHERE ${eq(registryKeys.isCurrent, 1)}) IS ${current?.kid ?? null}`,
    ),
    guard(sql`EXISTS (SELECT 1 FROM ${registryKeys} WHERE ${unrevoked})`),
    query
      .update(registryKeys)
      .set({
        status: "revoked",
        isCurrent: 0,
        revokedAtMs: nowMs,
        retiredAtMs: sql`COALESCE(${registryKeys.retiredAtMs}, ${nowMs})`,
      })
      .where(eq(registryKeys.kid, kid)),
    ...(successor === null ? [] : [insertCurrentKey(successor, nowMs)]),
    auditStatement(ctx, {
      action: "identity.keys.revoke",
      subject: `signing_key:${kid}`,
      agentDid: null,
      result: "ok",
      details: { successorKid: successor?.kid ?? null },
    }),
  ]);
  if (!committed.ok) return null;
  const currentKid = successor?.kid ?? current?.kid ?? kid;
  ctx.log.warn("identity.keys.revoked", { kid, currentKid });
  return { kid, revokedAtMs: nowMs, currentKid };
}

/** What has signed lists so far is a key like any other from now on. */
async function keepFirstKey(ctx: CallContext, registry: Registry): Promise<void> {
  const first = await firstSigningKey(registry);
  await commitUnder(ctx, [firstKeyStatement(first, registry.now())]);
}
