/** The rows of `api_keys`. Read at the primary: a key that was deleted is over for whoever asks next. */
import { and, eq, lt, sql } from "drizzle-orm";
import { apiKeyAuthority } from "../authority/names.ts";
import type { ApiKeyGrant } from "../authority/reference.ts";
import { type Scope, SCOPES } from "../authority/scopes.ts";
import { commitFenced, type Fence } from "../database/batch.ts";
import { read } from "../database/read.ts";
import { apiKeys } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import type { AgentDid } from "../wire/did.ts";

const MINUTE_MS = 60_000;

export type ApiKeyRow = {
  api_key_id: string;
  service_account_id: string;
  agent_did: AgentDid;
  tenant_id: string;
  name: string;
  scopes: string;
  generation: number;
  creator_user_id: string | null;
  creator_service_account_id: string | null;
  first_maker: string | null;
  created_at_ms: number;
  expires_at_ms: number | null;
  last_used_at_ms: number | null;
};

/** Everything but the hash, which nobody needs to see again. */
export const API_KEY_COLUMNS = `api_key_id, service_account_id, agent_did, tenant_id, name, scopes, generation,
  creator_user_id, creator_service_account_id, first_maker, created_at_ms, expires_at_ms, last_used_at_ms`;

/** The scopes of a row, those alone that this version knows. */
export function scopesOfRow(row: Pick<ApiKeyRow, "scopes">): Scope[] {
  const held = row.scopes.split(" ");
  return SCOPES.filter((scope) => held.includes(scope));
}

/**
 * Looks a key up by the hash of the whole key.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findApiKey(
  db: D1Database,
  keyHash: string,
): Promise<(ApiKeyGrant & { lastUsedAtMs: number | null }) | null> {
  const select = db
    .withSession("first-primary")
    .prepare(`SELECT ${API_KEY_COLUMNS} FROM api_keys WHERE key_hash = ?1`)
    .bind(keyHash);
  const row = await read(select.first<ApiKeyRow>());
  if (row === null) return null;
  return {
    principal: {
      kind: "apiKey",
      agentDid: row.agent_did,
      apiKeyId: row.api_key_id,
      serviceAccountId: row.service_account_id,
      tenantId: row.tenant_id,
      scopes: scopesOfRow(row),
    },
    generation: row.generation,
    expMs: row.expires_at_ms,
    lastUsedAtMs: row.last_used_at_ms,
  };
}

/** Writes down that a key was used, once a minute; null where this minute is written already. */
export function noteApiKeyUse(
  db: D1Database,
  key: { apiKeyId: string; lastUsedAtMs: number | null },
  nowMs: number,
): Promise<void> | null {
  const minuteMs = nowMs - (nowMs % MINUTE_MS);
  if (key.lastUsedAtMs !== null && key.lastUsedAtMs >= minuteMs) return null;
  const { apiKeyId } = key;
  const unended: Fence = { assertCurrent() {}, fence: () => [{ authority: apiKeyAuthority(apiKeyId), epoch: 0 }] };
  const note = query
    .update(apiKeys)
    .set({ lastUsedAtMs: minuteMs })
    .where(and(eq(apiKeys.apiKeyId, apiKeyId), lt(sql`COALESCE(${apiKeys.lastUsedAtMs}, 0)`, minuteMs)));
  // Undone where the key was ended meanwhile: there is nothing left to note.
  return commitFenced(db, unended, [note]).then(() => undefined);
}

/** A key by its id, at the primary. */
export async function findApiKeyById(db: D1Database, apiKeyId: string): Promise<ApiKeyRow | null> {
  const select = db
    .withSession("first-primary")
    .prepare(`SELECT ${API_KEY_COLUMNS} FROM api_keys WHERE api_key_id = ?1`)
    .bind(apiKeyId);
  return read(select.first<ApiKeyRow>());
}

/** Keys in the order they were made, one more than the page holds; an agent's own, or everybody's for the operator. */
export async function listApiKeys(
  session: D1DatabaseSession,
  page: { agentDid: string | null; cursor: string | null; limit: number },
): Promise<ApiKeyRow[]> {
  const select = session
    .prepare(
      `SELECT ${API_KEY_COLUMNS} FROM api_keys WHERE ${page.agentDid === null ? "?1 IS NULL" : "agent_did = ?1"}
         AND api_key_id > ?2 ORDER BY api_key_id LIMIT ?3`,
    )
    .bind(page.agentDid, page.cursor ?? "", page.limit + 1);
  return (await read(select.all<ApiKeyRow>())).results;
}

export type InsertedApiKey = {
  apiKeyId: string;
  keyHash: string;
  serviceAccountId: string;
  agentDid: string;
  tenantId: string;
  name: string;
  scopes: readonly Scope[];
  generation: number;
  creatorUserId: string | null;
  creatorServiceAccountId: string | null;
  originator: string | null;
  createdAtMs: number;
  expiresAtMs: number | null;
};

export function insertApiKey(db: D1Database, key: InsertedApiKey): D1PreparedStatement {
  return db
    .prepare(
      `INSERT INTO api_keys (api_key_id, key_hash, service_account_id, agent_did, tenant_id, name, scopes, generation,
         creator_user_id, creator_service_account_id, created_at_ms, expires_at_ms, first_maker)
       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)`,
    )
    .bind(
      key.apiKeyId,
      key.keyHash,
      key.serviceAccountId,
      key.agentDid,
      key.tenantId,
      key.name,
      key.scopes.join(" "),
      key.generation,
      key.creatorUserId,
      key.creatorServiceAccountId,
      key.createdAtMs,
      key.expiresAtMs,
      key.originator,
    );
}
