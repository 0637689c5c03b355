/**
 * Quotas on what outlasts a call: tasks and keys of an agent in rows, everything of a tenant in bytes. What an agent, a device or a
 * key makes is refused beyond them; what an operator makes is counted and not refused. No end of an authority, no revocation list
 * and no removal asks a quota. Contract §6.
 */
import { eq, sql } from "drizzle-orm";
import type { Config } from "../config.ts";
import { guard } from "../database/guard.ts";
import { readFirst } from "../database/read.ts";
import { apiKeys, quotaUsage, tasks } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import type { CallContext } from "./context.ts";

/** What is made: a task or a key of an agent, or a tuple (a share of a task), or a task's result, in a tenant. */
export type Made = {
  kind: "tasks" | "apiKeys" | "tuples" | "results";
  agentDid: string;
  tenantId: string;
  /** Of its texts; what its row takes besides is added here. */
  bytes: number;
};

/** What a row costs beside its texts, with its index entries and tuples; the same numbers stand in the triggers. */
const ROW_BYTES = { tasks: 2_048, apiKeys: 1_024, tuples: 0, results: 0 } as const;

/**
 * What the database may have before only operators still make something: D1 holds 10 GB, and what is left is for what ends
 * authorities and for the revocation list.
 */
const DATABASE_BYTES_MAX = 9_500_000_000;
/** As D1 last said it to this isolate; one that has not heard it yet lets one batch through and hears it then. */
let databaseBytes = 0;

/** Notes what D1 says of its size, in the result of any statement. */
export function noteDatabaseSize(result: D1Result | undefined): void {
  if (result !== undefined) databaseBytes = result.meta.size_after;
}

type Quotas = Pick<Config, "quotaTasksPerAgent" | "quotaKeysPerAgent" | "quotaBytesPerTenant">;

/**
 * @returns the first statements of a batch that makes something: it is undone (`{ guard: "quota_has_room" }`) where that has no room
 * @throws ProxyError PROXY_QUOTA_EXCEEDED where the whole database has none
 */
export function quotaStatements(
  { config, principal }: Pick<CallContext, "config" | "principal">,
  made: Made,
): Statement<D1Result>[] {
  const counted = [countedAgent(made.agentDid), countedTenant(made.tenantId)];
  if (principal.kind === "operator") return counted;
  assertDatabaseHasRoom();
  const { rows, bytes } = limitsOf(config, made.kind);
  const size = ROW_BYTES[made.kind] + made.bytes;
  const hasBytes = sql`(SELECT ${quotaUsage.bytes} FROM ${quotaUsage} WHERE ${eq(quotaUsage.holder, tenantHolder(made))}) + ${size} <= ${bytes}`;
  if (made.kind === "tuples" || made.kind === "results") return [...counted, guard(hasBytes, "quota_has_room")];
  const used = quotaUsage[made.kind];
  const hasRows = sql`(SELECT ${used} FROM ${quotaUsage} WHERE ${eq(quotaUsage.holder, agentHolder(made))}) < ${rows}`;
  return [...counted, guard(sql`${hasRows} AND ${hasBytes}`, "quota_has_room")];
}

/** For what is bounded by itself. @throws ProxyError PROXY_QUOTA_EXCEEDED where the whole database has no room */
export function assertDatabaseHasRoom(): void {
  if (databaseBytes <= DATABASE_BYTES_MAX) return;
  throw refusal(
    "database",
    databaseBytes,
    DATABASE_BYTES_MAX,
    "The database is nearly full; the operator has to make room.",
  );
}

/**
 * Describes what a quota has undone.
 *
 * @returns the refusal, PROXY_QUOTA_EXCEEDED with the quota, what is used of it, and its limit
 */
export async function quotaExceeded(
  { config, db }: Pick<CallContext, "config" | "db">,
  made: Made,
): Promise<ProxyError> {
  const { rows, bytes } = limitsOf(config, made.kind);
  const session = db.withSession("first-primary");
  const usageOf = (holder: string) =>
    readFirst(session, query.select().from(quotaUsage).where(eq(quotaUsage.holder, holder)));
  const [ofAgent, ofTenant] = [await usageOf(agentHolder(made)), await usageOf(tenantHolder(made))];
  const usedRows = made.kind === "tuples" || made.kind === "results" ? 0 : (ofAgent?.[made.kind] ?? 0);
  if (usedRows >= rows) {
    const [quota, what] =
      made.kind === "tasks" ? ["QUOTA_TASKS_PER_AGENT", "tasks"] : ["QUOTA_KEYS_PER_AGENT", "API keys"];
    return refusal(quota, usedRows, rows, `The agent has ${usedRows} of ${rows} ${what}; delete some first.`);
  }
  const used = ofTenant?.bytes ?? 0;
  const detail = `The tenant uses ${used} of ${bytes} bytes, and this needs more than is left; delete tasks or keys first.`;
  return refusal("QUOTA_BYTES_PER_TENANT", used, bytes, detail);
}

function refusal(quota: string, used: number, limit: number, detail: string): ProxyError {
  return new ProxyError("PROXY_QUOTA_EXCEEDED", { detail, data: { quota, used, limit } });
}

function limitsOf(config: Quotas, kind: Made["kind"]): { rows: number; bytes: number } {
  const rows = {
    tasks: config.quotaTasksPerAgent,
    apiKeys: config.quotaKeysPerAgent,
    tuples: Infinity,
    results: Infinity,
  };
  return { rows: rows[kind], bytes: config.quotaBytesPerTenant };
}

const agentHolder = ({ agentDid }: Pick<Made, "agentDid">): string => `agent:${agentDid}`;
const tenantHolder = ({ tenantId }: Pick<Made, "tenantId">): string => `tenant:${tenantId}`;

/** Counts what an agent has, the first time that it is asked for; from then on the triggers keep the numbers. */
function countedAgent(agentDid: string): Statement<D1Result> {
  const holder = agentHolder({ agentDid });
  return query.insert(quotaUsage).select(
    sql`SELECT ${holder}, (SELECT COUNT(*) FROM ${tasks} WHERE ${eq(tasks.agentDid, sql`${agentDid}`)}),
      (SELECT COUNT(*) FROM ${apiKeys} WHERE ${eq(apiKeys.agentDid, sql`${agentDid}`)}), 0
    WHERE NOT EXISTS (SELECT 1 FROM ${quotaUsage} WHERE ${eq(quotaUsage.holder, holder)})`,
  );
}

/** The same for a tenant, in bytes; entries of the audit count from then on. */
function countedTenant(tenantId: string): Statement<D1Result> {
  const holder = tenantHolder({ tenantId });
  return query.insert(quotaUsage).select(
    sql`SELECT ${holder}, 0, 0,
      (SELECT COALESCE(SUM(${ROW_BYTES.tasks} + octet_length(${tasks.params}) + octet_length(${tasks.metadata})
          + COALESCE(octet_length(${tasks.result}), 0) + COALESCE(octet_length(${tasks.statusMessage}), 0)), 0)
        FROM ${tasks} WHERE ${eq(tasks.tenantId, tenantId)})
      + (SELECT COUNT(*) * ${ROW_BYTES.apiKeys} FROM ${apiKeys} WHERE ${eq(apiKeys.tenantId, tenantId)})
    WHERE NOT EXISTS (SELECT 1 FROM ${quotaUsage} WHERE ${eq(quotaUsage.holder, holder)})`,
  );
}
