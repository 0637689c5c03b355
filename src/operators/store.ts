/** The rows of `operators`. Read at the primary: a key that has been revoked is over for the next call under it. */
import { and, asc, eq, getTableColumns, gt, inArray, isNull, lt, or, sql } from "drizzle-orm";
import { operatorAuthority, type OperatorPrincipal } from "../authority/operator.ts";
import type { RowOf } from "../database/columns.ts";
import { execute, readAll, readFirst } from "../database/read.ts";
import { operators } from "../database/schema.ts";
import { query, type Store } from "../database/statement.ts";

const MINUTE_MS = 60_000;

/** Everything but the hash, which is never shown again. */
const { keySha256: _, ...SHOWN } = getTableColumns(operators);

/** An operator as it is read. */
export type OperatorRow = RowOf<typeof SHOWN>;

const inForce = (nowMs: number) =>
  and(isNull(operators.revokedAtMs), or(isNull(operators.expiresAtMs), gt(operators.expiresAtMs, nowMs)));

/**
 * Looks a key up by the hash of the whole key.
 *
 * @param keySha256 base64url of its SHA-256
 * @returns its operator, or null for a key that is unknown, revoked or expired
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export function findOperatorByKey(db: D1Database, keySha256: string, nowMs: number): Promise<OperatorRow | null> {
  const select = query
    .select(SHOWN)
    .from(operators)
    .where(and(eq(operators.keySha256, keySha256), inForce(nowMs)));
  return readFirst(db.withSession("first-primary"), select);
}

/** @returns whether an operator's key is neither revoked nor expired. @throws as above */
export async function isOperatorInForce(db: D1Database, operatorId: string, nowMs: number): Promise<boolean> {
  const select = query
    .select({ operatorId: operators.operatorId })
    .from(operators)
    .where(and(eq(operators.operatorId, operatorId), inForce(nowMs)));
  return (await readFirst(db.withSession("first-primary"), select)) !== null;
}

/** @returns the operator of a row, as a caller */
export function operatorOfRow({ operatorId, name, role }: OperatorRow): OperatorPrincipal {
  return { kind: "operator", name, role, id: operatorId, isRevocable: true };
}

/**
 * Writes down that a key was used, once a minute.
 *
 * @returns null where this minute is written already
 */
export function noteOperatorUse(db: D1Database, row: OperatorRow, nowMs: number): Promise<unknown> | null {
  const minuteMs = nowMs - (nowMs % MINUTE_MS);
  if (row.lastUsedAtMs !== null && row.lastUsedAtMs >= minuteMs) return null;
  const isLater = lt(sql`COALESCE(${operators.lastUsedAtMs}, 0)`, minuteMs);
  const note = query
    .update(operators)
    .set({ lastUsedAtMs: minuteMs })
    .where(and(eq(operators.operatorId, row.operatorId), isNull(operators.revokedAtMs), isLater));
  return execute(db, note);
}

/**
 * A page of operators in the order they were made, those that have been revoked included.
 *
 * @param page `cursor` is the last id of the page before
 * @returns one more than the page holds, where there are more
 */
export function listOperatorRows(store: Store, page: { cursor: string | null; limit: number }): Promise<OperatorRow[]> {
  const select = query
    .select(SHOWN)
    .from(operators)
    .where(gt(operators.operatorId, page.cursor ?? ""))
    .orderBy(asc(operators.operatorId))
    .limit(page.limit + 1);
  return readAll(store, select);
}

/** An operator by its id, at the primary. */
export function findOperator(db: D1Database, operatorId: string): Promise<OperatorRow | null> {
  const select = query.select(SHOWN).from(operators).where(eq(operators.operatorId, operatorId));
  return readFirst(db.withSession("first-primary"), select);
}

/** @returns the ids of those whom any of these have made, at the primary; a revoked one no less */
export async function madeBy(db: D1Database, operatorIds: readonly string[]): Promise<string[]> {
  const makers = operatorIds.map(operatorAuthority);
  const select = query
    .select({ operatorId: operators.operatorId })
    .from(operators)
    .where(inArray(operators.createdBy, sql`(SELECT value FROM json_each(${JSON.stringify(makers)}))`));
  return (await readAll(db.withSession("first-primary"), select)).map(({ operatorId }) => operatorId);
}
