/** Tasks and API keys, each with who made it: a person, a service account, or neither (the operator), never both. */
import { sql } from "drizzle-orm";
import { check, index, integer, sqliteTable, text, uniqueIndex } from "drizzle-orm/sqlite-core";
import type { AgentDid } from "../../wire/did.ts";

/** `params` and `metadata` are JSON text, kept as it came. */
export const tasks = sqliteTable(
  "tasks",
  {
    taskId: text("task_id").primaryKey(),
    tenantId: text("tenant_id").notNull(),
    /** Unique within the tenant; many tasks have none. */
    name: text("name"),
    agentDid: text("agent_did").$type<AgentDid>().notNull(),
    /** 'canceled' for whatever is final; what the task is at says `tasks/state.ts`. */
    status: text("status", { enum: ["running", "canceled"] }).notNull(),
    params: text("params").notNull(),
    metadata: text("metadata").notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    updatedAtMs: integer("updated_at_ms").notNull(),
    creatorUserId: text("creator_user_id"),
    creatorServiceAccountId: text("creator_service_account_id"),
    /** NULL: as `status` says. */
    state: text("state", {
      enum: ["running", "input_required", "interrupted", "completed", "failed", "rejected"],
    }),
    statusMessage: text("status_message"),
    /** JSON text, kept as it came. */
    result: text("result"),
    endedAtMs: integer("ended_at_ms"),
    /** The agent that made it, or whose device or key did; NULL where an operator or an older version did. */
    creatorAgentDid: text("creator_agent_did").$type<AgentDid>(),
  },
  (table) => [
    // The name first, so that the operator, who is in no tenant, finds a name too.
    uniqueIndex("tasks_by_name")
      .on(table.name, table.tenantId)
      .where(sql`${table.name} IS NOT NULL`),
    index("tasks_by_agent").on(table.agentDid, table.taskId),
    index("tasks_by_tenant").on(table.tenantId, table.taskId),
    index("tasks_by_creator_user")
      .on(table.creatorUserId, table.taskId)
      .where(sql`${table.creatorUserId} IS NOT NULL`),
    index("tasks_by_creator_service_account")
      .on(table.creatorServiceAccountId, table.taskId)
      .where(sql`${table.creatorServiceAccountId} IS NOT NULL`),
    check("tasks_status", sql`${table.status} IN ('running', 'canceled')`),
    check(
      "tasks_state",
      sql`${table.state} IS NULL OR ${table.state} IN ('running', 'input_required', 'interrupted', 'completed', 'failed', 'rejected')`,
    ),
    check("tasks_result", sql`${table.result} IS NULL OR json_valid(${table.result})`),
    check("tasks_params", sql`json_valid(${table.params})`),
    check("tasks_metadata", sql`json_valid(${table.metadata})`),
    check(
      "ck_tasks_at_most_one_creator",
      sql`${table.creatorUserId} IS NULL OR ${table.creatorServiceAccountId} IS NULL`,
    ),
  ],
);

/** The key itself is never stored, only the base64url of its SHA-256. */
export const apiKeys = sqliteTable(
  "api_keys",
  {
    apiKeyId: text("api_key_id").primaryKey(),
    keyHash: text("key_hash").notNull().unique(),
    serviceAccountId: text("service_account_id").notNull().unique(),
    agentDid: text("agent_did").$type<AgentDid>().notNull(),
    tenantId: text("tenant_id").notNull(),
    name: text("name").notNull(),
    /** Separated by spaces. */
    scopes: text("scopes").notNull(),
    /** That of the agent's gate when the key was made: what ends everything of the agent raises it there. */
    generation: integer("generation").notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    expiresAtMs: integer("expires_at_ms"),
    /** To the minute. */
    lastUsedAtMs: integer("last_used_at_ms"),
    creatorUserId: text("creator_user_id"),
    creatorServiceAccountId: text("creator_service_account_id"),
    /** The agent, device or operator at the beginning of its making; NULL where an older version made the key. */
    firstMaker: text("first_maker"),
    /** The authority that made it; NULL where an older version did. */
    maker: text("maker"),
    /** Every device and key that it descends from, as JSON (`authority/lineage.ts`); NULL where an older version made it. */
    lineage: text("lineage"),
  },
  (table) => [
    index("api_keys_by_agent").on(table.agentDid, table.apiKeyId),
    index("api_keys_by_tenant").on(table.tenantId, table.apiKeyId),
    index("api_keys_by_creator_user")
      .on(table.creatorUserId, table.apiKeyId)
      .where(sql`${table.creatorUserId} IS NOT NULL`),
    index("api_keys_by_creator_service_account")
      .on(table.creatorServiceAccountId, table.apiKeyId)
      .where(sql`${table.creatorServiceAccountId} IS NOT NULL`),
    index("api_keys_by_maker")
      .on(table.maker, table.apiKeyId)
      .where(sql`${table.maker} IS NOT NULL`),
    check(
      "ck_api_keys_at_most_one_creator",
      sql`${table.creatorUserId} IS NULL OR ${table.creatorServiceAccountId} IS NULL`,
    ),
    check("ck_api_keys_lineage", sql`${table.lineage} IS NULL OR json_valid(${table.lineage})`),
  ],
);

/** Authorities whose end is also that of keys, while rows of these are left. STRICT, WITHOUT ROWID. */
export const apiKeyCleanup = sqliteTable("api_key_cleanup", {
  /** As in `api_keys`, or `issued:<did>` for all keys of an agent. */
  maker: text("maker").primaryKey(),
  agentDid: text("agent_did").$type<AgentDid>().notNull(),
  notedAtMs: integer("noted_at_ms").notNull(),
});
