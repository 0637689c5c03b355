/**
 * What an ended authority leaves behind: rows and grants of the keys that descend from it. Those keys are over already, in their
 * agent's gate and by their fences in D1; here their rows go, a bounded number at a time, by the call that ended them and after
 * it by housekeeping.
 */
import { and, asc, eq, inArray, isNull, or, type SQL, sql } from "drizzle-orm";
import { apiKeyAuthority, issuedAuthority } from "../authority/names.ts";
import { bulkOutboxStatements } from "../authz/sync/outbox.ts";
import type { CallContext } from "../call/context.ts";
import { runBatch } from "../database/batch.ts";
import { names } from "../database/columns.ts";
import { readAll, readFirst } from "../database/read.ts";
import { apiKeyCleanup, apiKeys, relationships } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { DeadlineExceeded, withDeadline } from "../resilience/deadline.ts";
import { errorFields, type Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import { isKeyOver } from "./lineage.ts";

/** Keys that one batch deletes, with their grants. */
export const KEYS_PER_BATCH = 200;
/** Batches of one call; more is left to housekeeping. */
const BATCHES_PER_CALL = 5;
/** How long the answer to an end waits for the rows, which nothing depends on any more. */
const CALL_WAIT_MAX_MS = 1_000;

export type CleanupDeps = Pick<CallContext, "db" | "config" | "now">;

/** @returns the statement that notes an ended authority, where keys descend from it; for the batch that raises its token */
export function noteEndedMaker(maker: string, agentDid: AgentDid, nowMs: number): Statement<D1Result> {
  return note(
    sql`SELECT ${maker}, ${agentDid}, ${nowMs}
      WHERE EXISTS (SELECT 1 FROM ${apiKeys} WHERE ${eq(apiKeys.maker, maker)})
        OR EXISTS (SELECT 1 FROM ${apiKeys} WHERE ${ofOlderVersion(agentDid)})`,
  );
}

/** The same for everything that was issued to an agent. */
export function noteEndedAgent(agentDid: AgentDid, nowMs: number): Statement<D1Result> {
  return note(
    sql`SELECT ${issuedAuthority(agentDid)}, ${agentDid}, ${nowMs}
      WHERE EXISTS (SELECT 1 FROM ${apiKeys} WHERE ${eq(apiKeys.agentDid, agentDid)})`,
  );
}

function note(noted: SQL): Statement<D1Result> {
  const { maker, agentDid, notedAtMs } = apiKeyCleanup;
  return query.run(
    sql`INSERT INTO ${apiKeyCleanup} (${names(maker, agentDid, notedAtMs)}) ${noted} ON CONFLICT DO NOTHING`,
  );
}

/** A key of an older version names no maker: whether it descends from an ended one is seen at each of them. */
function ofOlderVersion(agentDid: AgentDid): SQL | undefined {
  return and(eq(apiKeys.agentDid, agentDid), isNull(apiKeys.maker));
}

/**
 * Deletes what the ends of one agent have left behind, as far as a call waits for it. A failure is logged: the ends hold, and
 * housekeeping continues.
 */
export async function cleanUpAfterCall(deps: CleanupDeps & { log: Log }, agentDid: AgentDid): Promise<void> {
  const work = async (): Promise<void> => {
    for (let batches = 0; batches < BATCHES_PER_CALL; batches += 1) {
      // oxlint-disable-next-line no-await-in-loop -- batch after batch
      if ((await cleanUpBatch(deps, agentDid)) === "done") return;
    }
  };
  try {
    await withDeadline(CALL_WAIT_MAX_MS, work);
  } catch (error) {
    if (error instanceof DeadlineExceeded) return;
    deps.log.warn("apikey.cleanup_deferred", { agentDid, ...errorFields(error) });
  }
}

/**
 * Deletes one batch of rows that ended authorities have left behind, the oldest end first.
 *
 * @param agentDid of which alone; null for all
 * @returns `done` where nothing is left
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function cleanUpBatch(deps: CleanupDeps, agentDid: AgentDid | null): Promise<"done" | "more"> {
  const session = deps.db.withSession("first-primary");
  const ofAgent = agentDid === null ? undefined : eq(apiKeyCleanup.agentDid, agentDid);
  const oldest = query.select().from(apiKeyCleanup).where(ofAgent).orderBy(asc(apiKeyCleanup.notedAtMs)).limit(1);
  const ended = await readFirst(session, oldest);
  if (ended === null) return "done";
  const isOfMaker =
    ended.maker === issuedAuthority(ended.agentDid)
      ? eq(apiKeys.agentDid, ended.agentDid)
      : or(eq(apiKeys.maker, ended.maker), ofOlderVersion(ended.agentDid));
  const over = query
    .select({ apiKeyId: apiKeys.apiKeyId })
    .from(apiKeys)
    .where(and(isOfMaker, isKeyOver()))
    .limit(KEYS_PER_BATCH);
  const ids = (await readAll(session, over)).map(({ apiKeyId }) => apiKeyId);
  const finished = query.delete(apiKeyCleanup).where(eq(apiKeyCleanup.maker, ended.maker));
  await runBatch(session, [
    ...(ids.length === 0 ? [] : deleteStatements(deps, ids)),
    ...(ids.length < KEYS_PER_BATCH ? [finished] : []),
  ]);
  return "more";
}

/** What deletes keys: those that they made are noted first, then what a remote graph has to take back, grants, rows. */
function deleteStatements({ config, now }: CleanupDeps, ids: readonly string[]): Statement<D1Result>[] {
  const nowMs = now();
  const isDeleted = sql`${apiKeys.apiKeyId} IN (SELECT value FROM json_each(${JSON.stringify(ids)}))`;
  const makers = JSON.stringify(ids.map(apiKeyAuthority));
  const children = note(
    sql`SELECT DISTINCT ${apiKeys.maker}, ${apiKeys.agentDid}, ${nowMs} FROM ${apiKeys}
      WHERE ${apiKeys.maker} IN (SELECT value FROM json_each(${makers}))`,
  );
  const withdrawn = sql`SELECT 'end-' || ${apiKeys.apiKeyId}, 'deregister', 'agent:' || ${apiKeys.agentDid},
    'service_account:' || ${apiKeys.serviceAccountId}, 'tenant:' || ${apiKeys.tenantId}, 'executor', ${apiKeys.tenantId}
    FROM ${apiKeys} WHERE ${isDeleted}`;
  const grants = query
    .delete(relationships)
    .where(
      and(
        eq(relationships.subjectType, "service_account"),
        sql`${relationships.subjectId} IN (SELECT ${apiKeys.serviceAccountId} FROM ${apiKeys} WHERE ${isDeleted})`,
        eq(relationships.subjectRelation, ""),
        inArray(relationships.objectType, ["tenant", "agent"]),
        inArray(relationships.relation, ["member", "executor"]),
      ),
    );
  return [
    children,
    ...(config.authzGraph === "d1" ? [] : bulkOutboxStatements(withdrawn, nowMs)),
    grants,
    query.delete(apiKeys).where(isDeleted),
  ];
}
