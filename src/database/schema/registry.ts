/** The tables of the embedded registry. Times are milliseconds since 1970, hashes base64url of SHA-256, keys base64url of 32 bytes. */
import { sql } from "drizzle-orm";
import { check, index, integer, sqliteTable, text, uniqueIndex } from "drizzle-orm/sqlite-core";
import type { AgentDid, HumanDid } from "../../wire/did.ts";

/** Public halves of the signing keys. A trigger keeps a revoked key revoked. */
export const registryKeys = sqliteTable(
  "registry_keys",
  {
    kid: text("kid").primaryKey(),
    x: text("x").notNull().unique(),
    status: text("status", { enum: ["active", "revoked"] }).notNull(),
    isCurrent: integer("is_current").$type<0 | 1>().notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    /** When it stopped being the current one. */
    retiredAtMs: integer("retired_at_ms"),
    revokedAtMs: integer("revoked_at_ms"),
  },
  (table) => [
    uniqueIndex("registry_keys_one_current")
      .on(table.isCurrent)
      .where(sql`${table.isCurrent} = 1`),
    check("registry_keys_status", sql`${table.status} IN ('active', 'revoked')`),
    check("registry_keys_is_current", sql`${table.isCurrent} IN (0, 1)`),
    check("registry_keys_current_is_active", sql`${table.isCurrent} = 0 OR ${table.status} = 'active'`),
  ],
);

/** A trigger keeps a revoked agent revoked. */
export const agents = sqliteTable(
  "agents",
  {
    agentDid: text("agent_did").$type<AgentDid>().primaryKey(),
    ownerDid: text("owner_did").$type<HumanDid>().notNull(),
    tenantId: text("tenant_id").notNull(),
    name: text("name").notNull(),
    framework: text("framework").notNull(),
    description: text("description"),
    /** The key it proves possession of now. */
    publicKey: text("public_key").notNull().unique(),
    aitTtlSeconds: integer("ait_ttl_seconds").notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    rekeyedAtMs: integer("rekeyed_at_ms"),
    revokedAtMs: integer("revoked_at_ms"),
    revokedReason: text("revoked_reason"),
  },
  (table) => [index("agents_by_owner").on(table.ownerDid, table.agentDid)],
);

/** Every key an agent ever had; none serves again once it was ended. */
export const agentKeys = sqliteTable(
  "agent_keys",
  {
    publicKey: text("public_key").primaryKey(),
    agentDid: text("agent_did")
      .$type<AgentDid>()
      .notNull()
      .references(() => agents.agentDid),
    sinceMs: integer("since_ms").notNull(),
    endedAtMs: integer("ended_at_ms"),
  },
  (table) => [index("agent_keys_by_agent").on(table.agentDid)],
);

/** Agent identity tokens, by jti. The token itself is not kept. */
export const aits = sqliteTable(
  "aits",
  {
    jti: text("jti").primaryKey(),
    agentDid: text("agent_did")
      .$type<AgentDid>()
      .notNull()
      .references(() => agents.agentDid),
    kid: text("kid").notNull(),
    issuedAtMs: integer("issued_at_ms").notNull(),
    expiresAtMs: integer("expires_at_ms").notNull(),
    revokedAtMs: integer("revoked_at_ms"),
    revokedReason: text("revoked_reason"),
  },
  (table) => [
    index("aits_by_agent").on(table.agentDid, table.expiresAtMs),
    index("aits_by_key").on(table.kid, table.expiresAtMs),
    index("aits_by_expiry").on(table.expiresAtMs),
    index("aits_revoked")
      .on(table.expiresAtMs)
      .where(sql`${table.revokedAtMs} IS NOT NULL`),
  ],
);

/** All tokens that descend from one registration or re-key. Ending the family ends each of them. */
export const tokenFamilies = sqliteTable(
  "token_families",
  {
    familyId: text("family_id").primaryKey(),
    agentDid: text("agent_did")
      .$type<AgentDid>()
      .notNull()
      .references(() => agents.agentDid),
    createdAtMs: integer("created_at_ms").notNull(),
    endedAtMs: integer("ended_at_ms"),
    endedReason: text("ended_reason"),
  },
  (table) => [index("token_families_by_agent").on(table.agentDid)],
);

/** An access token and the refresh token that was handed out with it. */
export const tokenPairs = sqliteTable(
  "token_pairs",
  {
    refreshHash: text("refresh_hash").primaryKey(),
    accessHash: text("access_hash").notNull().unique(),
    familyId: text("family_id")
      .notNull()
      .references(() => tokenFamilies.familyId),
    agentDid: text("agent_did").$type<AgentDid>().notNull(),
    /** The agent key it was handed out to. */
    keyX: text("key_x").notNull(),
    issuedAtMs: integer("issued_at_ms").notNull(),
    accessExpiresAtMs: integer("access_expires_at_ms").notNull(),
    refreshExpiresAtMs: integer("refresh_expires_at_ms").notNull(),
    /** When the refresh token was first used, and the pair that was handed out last for it. */
    usedAtMs: integer("used_at_ms"),
    successorHash: text("successor_hash"),
    /** A pair whose answer was lost is ended when the refresh is repeated. */
    endedAtMs: integer("ended_at_ms"),
  },
  (table) => [
    index("token_pairs_by_family").on(table.familyId),
    index("token_pairs_by_expiry").on(table.refreshExpiresAtMs),
  ],
);

/** One row: what a revocation list was last signed for. `revision` changes with every revocation, `lastIat` (seconds) only rises. */
export const crlState = sqliteTable(
  "crl_state",
  {
    id: integer("id").primaryKey(),
    revision: text("revision").notNull(),
    lastIat: integer("last_iat").notNull(),
  },
  (table) => [check("crl_state_id", sql`${table.id} = 1`)],
);

/** Never holds a row: a batch inserts 0 here when what it was decided on has changed, and is thereby undone whole. */
export const registryGuard = sqliteTable(
  "registry_guard",
  {
    holds: integer("holds").$type<0 | 1>().notNull(),
  },
  (table) => [check("registry_is_as_read", sql`${table.holds} = 1`)],
);
