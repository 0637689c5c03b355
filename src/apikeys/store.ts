/** The rows of `api_keys`. Read at the primary: a key that has ended is over for the next call under it. */
import { and, asc, eq, getTableColumns, gt, lt, not, sql } from "drizzle-orm";
import { apiKeyAuthority, issuedAuthority } from "../authority/names.ts";
import { type Lineage, lineageTokens } from "../authority/lineage.ts";
import type { ApiKeyGrant } from "../authority/reference.ts";
import { type Scope, SCOPES } from "../authority/scopes.ts";
import { commitFenced, type Fence } from "../database/batch.ts";
import type { RowOf } from "../database/columns.ts";
import { readAll, readFirst } from "../database/read.ts";
import { apiKeys } from "../database/schema.ts";
import { preparedStatement, query, type Statement, type Store } from "../database/statement.ts";
import type { AgentDid } from "../wire/did.ts";
import { isKeyOver, lineageOfRow } from "./lineage.ts";

const MINUTE_MS = 60_000;

/** Everything but the hash, which is never shown again. */
const { keyHash: _, ...SHOWN } = getTableColumns(apiKeys);

/** A key as it is read. */
export type ApiKeyRow = RowOf<typeof SHOWN>;

/** A key with all that a call under it has to know. */
export type FoundApiKey = ApiKeyGrant & { lastUsedAtMs: number | null };

/** @returns the scopes of a row, those alone that this version knows */
export function scopesOfRow(row: Pick<ApiKeyRow, "scopes">): Scope[] {
  const held = row.scopes.split(" ");
  return SCOPES.filter((scope) => held.includes(scope));
}

const byHash = preparedStatement(() =>
  query
    .select(SHOWN)
    .from(apiKeys)
    .where(and(eq(apiKeys.keyHash, sql.placeholder("keyHash")), not(isKeyOver()))),
);

/**
 * Looks a key up by the hash of the whole key.
 *
 * @param keyHash base64url of its SHA-256
 * @returns the key, or null where there is none or one that has ended, by itself or with what it descends from
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findApiKey(db: D1Database, keyHash: string): Promise<FoundApiKey | null> {
  const session = db.withSession("first-primary");
  const row = await readFirst(session, byHash({ keyHash }));
  const lineage = row === null ? null : await lineageOfRow(session, row);
  if (row === null || lineage === null) return null;
  return {
    principal: {
      kind: "apiKey",
      agentDid: row.agentDid,
      apiKeyId: row.apiKeyId,
      serviceAccountId: row.serviceAccountId,
      tenantId: row.tenantId,
      scopes: scopesOfRow(row),
      expMs: row.expiresAtMs,
      originator: originatorOf(row),
      lineage,
    },
    generation: row.generation,
    expMs: row.expiresAtMs,
    lastUsedAtMs: row.lastUsedAtMs,
  };
}

/** The agent, device or operator at the beginning of a key's making; null where an older version recorded none. */
function originatorOf(row: ApiKeyRow): string | null {
  const isOperators = row.creatorUserId === null && row.creatorServiceAccountId === null;
  return row.firstMaker ?? (isOperators ? "operator" : null);
}

/**
 * Writes down that a key was used, once a minute.
 *
 * @returns null where this minute is written already
 */
export function noteApiKeyUse(db: D1Database, key: FoundApiKey, nowMs: number): Promise<void> | null {
  const minuteMs = nowMs - (nowMs % MINUTE_MS);
  if (key.lastUsedAtMs !== null && key.lastUsedAtMs >= minuteMs) return null;
  const note = query
    .update(apiKeys)
    .set({ lastUsedAtMs: minuteMs })
    .where(and(eq(apiKeys.apiKeyId, key.principal.apiKeyId), lt(sql`COALESCE(${apiKeys.lastUsedAtMs}, 0)`, minuteMs)));
  // Undone where the key was ended meanwhile: there is nothing left to note.
  return commitFenced(db, unendedFence(key), [note]).then(() => undefined);
}

/** Holds while the key, and everything it descends from, does. */
function unendedFence({ principal, generation }: FoundApiKey): Fence {
  const { agentDid, apiKeyId, lineage } = principal;
  return {
    assertCurrent() {},
    fence: () => [
      { authority: apiKeyAuthority(apiKeyId), epoch: 0 },
      { authority: issuedAuthority(agentDid), epoch: generation },
      ...lineageTokens(agentDid, lineage),
    ],
  };
}

/** A key by its id, at the primary, also one that has ended but whose row is there still. */
export function findApiKeyById(db: D1Database, apiKeyId: string): Promise<ApiKeyRow | null> {
  const select = query.select(SHOWN).from(apiKeys).where(eq(apiKeys.apiKeyId, apiKeyId));
  return readFirst(db.withSession("first-primary"), select);
}

/**
 * Lists keys that have not ended, in the order they were made.
 *
 * @param page `agentDid` null for those of every agent
 * @returns one more than the page holds, where there are more
 */
export function listApiKeys(
  store: Store,
  page: { agentDid: AgentDid | null; cursor: string | null; limit: number },
): Promise<ApiKeyRow[]> {
  const ofAgent = page.agentDid === null ? undefined : eq(apiKeys.agentDid, page.agentDid);
  const select = query
    .select(SHOWN)
    .from(apiKeys)
    .where(and(ofAgent, gt(apiKeys.apiKeyId, page.cursor ?? ""), not(isKeyOver())))
    .orderBy(asc(apiKeys.apiKeyId))
    .limit(page.limit + 1);
  return readAll(store, select);
}

/** A key that is made; its own text is never stored. */
export type NewApiKeyRow = Omit<typeof apiKeys.$inferInsert, "scopes" | "lineage" | "lastUsedAtMs"> & {
  scopes: readonly Scope[];
  lineage: Lineage;
};

/** @returns the statement that makes a key */
export function insertApiKey(key: NewApiKeyRow): Statement<D1Result> {
  return query
    .insert(apiKeys)
    .values({ ...key, scopes: key.scopes.join(" "), lineage: JSON.stringify(key.lineage), lastUsedAtMs: null });
}
