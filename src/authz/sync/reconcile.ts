/**
 * Reconciliation: rows that have no tuples get them from their own columns, tuples whose row is gone go, and what cannot be
 * attributed is reported. In pages, so that it can be stopped and resumed; every repair reads the rows anew when it writes, so
 * that what was deleted meanwhile gets no tuple.
 */
import type { Config } from "../../config.ts";
import { runBatch } from "../../database/batch.ts";
import { type AuditedCall, auditStatement } from "../../audit/entry.ts";
import type { Log } from "../../telemetry/log.ts";
import { gauge } from "../../telemetry/metrics.ts";
import { countParked } from "./outbox.ts";
import { isTaken } from "./withdrawn-grants.ts";

/** Rows and objects that one page looks at. */
export const SCANNED_AT_ONCE = 2_000;
/** How many of them an entry of the audit names. */
const IDS_NAMED = 10;

/** Beside what it works with: whom the audit names for what it does. */
export type ReconcileDeps = AuditedCall & { db: D1Database; config: Pick<Config, "authzGraph">; log: Log };

export type ReconcileOptions = {
  dryRun: boolean;
  /** From the page before; null to begin. */
  cursor: string | null;
  /** Tuples younger than this are left alone. */
  graceMs: number;
  /** The tenants whose tasks, and whose keys, are looked after; null for all. */
  tenants: { tasks: readonly string[] | null; keys: readonly string[] | null };
  limit?: number;
};

export type Report = {
  scanned: number;
  /** Rows that lacked tuples. */
  repaired: number;
  /** Tuples without a row. */
  removed: number;
  /** Tasks whose owner nobody knows: made by the operator, or before creators were kept. */
  unattributable: number;
  drift: number;
  /** Rows of the outbox that a remote graph refused for good, on the last page; absent where there are none. */
  parked?: number;
  nextCursor?: string;
};

const PHASES = ["tasks", "apikeys", "agents", "task-tuples", "key-tuples"] as const;
type Phase = (typeof PHASES)[number];

/** @returns the phase and the last id of a page, or null for what is no cursor */
export function parseReconcileCursor(cursor: string): { phase: Phase; after: string } | null {
  const colon = cursor.indexOf(":");
  const phase = PHASES.find((each) => each === cursor.slice(0, colon));
  return phase === undefined ? null : { phase, after: cursor.slice(colon + 1) };
}

/** What one phase saw in one page: ids in their order, and those that need something done. */
type Seen = { ids: string[]; repair: string[]; remove: { id: string; tuples: number }[]; unattributable: number };

/**
 * Works through one page.
 *
 * @throws RangeError for a cursor that is none
 */
export async function reconcile(deps: ReconcileDeps, options: ReconcileOptions): Promise<Report> {
  const begin = options.cursor === null ? { phase: PHASES[0], after: "" } : parseReconcileCursor(options.cursor);
  if (begin === null) throw new RangeError("no cursor of a reconciliation");
  let left = options.limit ?? SCANNED_AT_ONCE;
  const report = { scanned: 0, repaired: 0, removed: 0, unattributable: 0 };
  const total = (): Report => ({ ...report, drift: report.repaired + report.removed });
  for (let index = PHASES.indexOf(begin.phase); index < PHASES.length; index += 1) {
    const phase = PHASES[index] ?? PHASES[0];
    let after = phase === begin.phase ? begin.after : "";
    for (;;) {
      if (left <= 0) return { ...total(), nextCursor: `${phase}:${after}` };
      // oxlint-disable-next-line no-await-in-loop -- page after page
      const seen = await look(deps, phase, after, { ...options, limit: left });
      report.scanned += seen.ids.length;
      report.repaired += seen.repair.length;
      report.removed += seen.remove.reduce((sum, { tuples }) => sum + tuples, 0);
      report.unattributable += seen.unattributable;
      // oxlint-disable-next-line no-await-in-loop -- repaired before the next page is read
      if (!options.dryRun) await mend(deps, phase, seen);
      const isLast = seen.ids.length < left;
      left -= seen.ids.length;
      after = seen.ids.at(-1) ?? after;
      if (isLast) break;
    }
  }
  const parked = deps.config.authzGraph === "d1" ? 0 : await countParked(deps.db);
  return { ...total(), ...(parked === 0 ? {} : { parked }) };
}

/** Everything in one go, page by page, for the gauge. */
export async function noteDrift(deps: Pick<ReconcileDeps, "log">, drift: number): Promise<void> {
  gauge("task_fgac_drift", {}, drift);
  if (drift > 0) deps.log.warn("authz.drift", { drift });
}

// ---- looking -------------------------------------------------------------------------------------------------------

const has = (objectType: string, objectId: string, relation: string): string =>
  `EXISTS (SELECT 1 FROM relationships WHERE object_type = '${objectType}' AND object_id = ${objectId} AND relation = '${relation}')`;
const HAS_ACCOUNT_GRANT = `EXISTS (SELECT 1 FROM relationships WHERE subject_type = 'service_account'
  AND subject_id = k.service_account_id AND subject_relation = '' AND object_type IN ('tenant', 'agent'))`;
const NOT_OWNED = `NOT ${has("task", "t.task_id", "owner")}`;
const HAS_CREATOR = "(t.creator_user_id IS NOT NULL OR t.creator_service_account_id IS NOT NULL)";

/** A task that lacks a tuple which its row can give. */
const TASK_LACKS = `(NOT ${has("task", "t.task_id", "tenant")} OR NOT ${has("task", "t.task_id", "parent")} OR (${NOT_OWNED} AND ${HAS_CREATOR}))`;
const KEY_LACKS = `(NOT ${HAS_ACCOUNT_GRANT} AND NOT ${isTaken("service_account", "k.service_account_id")})`;
/** The grants of an agent. What others were granted on it, and what it was given elsewhere, is not its own. */
const HAS_AGENT_GRANT = `(EXISTS (SELECT 1 FROM relationships WHERE object_type = 'agent' AND object_id = a.agent_did
    AND (relation IN ('tenant', 'owner') OR (relation = 'executor' AND subject_type = 'agent' AND subject_id = a.agent_did)))
  OR EXISTS (SELECT 1 FROM relationships WHERE subject_type = 'agent' AND subject_id = a.agent_did AND subject_relation = ''
    AND object_type = 'tenant' AND relation = 'member'))`;
/** An agent that never was in the graph. What an operator took from one that was is not given back. */
const AGENT_LACKS = `(a.revoked_at_ms IS NULL AND NOT ${HAS_AGENT_GRANT} AND NOT ${isTaken("agent", "a.agent_did")})`;
const ULID_LIKE = "length(subject_id) = 26 AND subject_id NOT GLOB '*[^0-9A-HJKMNP-TV-Z]*'";
/** The grants of a service account; what else it was given, its tasks included, is not the key's. */
const KEY_GRANTS = `subject_type = 'service_account' AND subject_relation = ''
  AND ((object_type = 'tenant' AND relation = 'member') OR (object_type = 'agent' AND relation = 'executor'))`;

const only = (column: string): string => `(?3 IS NULL OR ${column} IN (SELECT value FROM json_each(?3)))`;

type LookRow = { id: string; lacks: 0 | 1; nobody: 0 | 1; tuples: number };

async function look(
  { db, now }: ReconcileDeps,
  phase: Phase,
  after: string,
  { tenants, graceMs, limit }: ReconcileOptions & { limit: number },
): Promise<Seen> {
  const queries: Record<Phase, string> = {
    tasks: `SELECT t.task_id AS id, ${TASK_LACKS} AS lacks, (${NOT_OWNED} AND NOT ${HAS_CREATOR}) AS nobody, 0 AS tuples
      FROM tasks AS t WHERE t.task_id > ?1 AND ${only("t.tenant_id")} AND ?4 = ?4 ORDER BY t.task_id LIMIT ?2`,
    apikeys: `SELECT k.api_key_id AS id, ${KEY_LACKS} AS lacks, 0 AS nobody, 0 AS tuples
      FROM api_keys AS k WHERE k.api_key_id > ?1 AND ${only("k.tenant_id")} AND ?4 = ?4 ORDER BY k.api_key_id LIMIT ?2`,
    agents: `SELECT a.agent_did AS id, ${AGENT_LACKS} AS lacks, 0 AS nobody, 0 AS tuples
      FROM agents AS a WHERE a.agent_did > ?1 AND ${only("a.tenant_id")} AND ?4 = ?4 ORDER BY a.agent_did LIMIT ?2`,
    "task-tuples": `SELECT id, 0 AS lacks, 0 AS nobody,
        CASE WHEN EXISTS (SELECT 1 FROM tasks WHERE task_id = id) THEN 0 ELSE
          (SELECT COUNT(*) FROM relationships WHERE object_type = 'task' AND object_id = id AND created_at_ms <= ?4) END AS tuples
      FROM (SELECT DISTINCT object_id AS id FROM relationships
        WHERE object_type = 'task' AND object_id > ?1 AND ?3 IS ?3 ORDER BY object_id LIMIT ?2) ORDER BY id`,
    "key-tuples": `SELECT id, 0 AS lacks, 0 AS nobody,
        CASE WHEN EXISTS (SELECT 1 FROM api_keys WHERE service_account_id = id) THEN 0 ELSE
          (SELECT COUNT(*) FROM relationships WHERE subject_id = id AND ${KEY_GRANTS} AND created_at_ms <= ?4) END AS tuples
      FROM (SELECT DISTINCT subject_id AS id FROM relationships
        WHERE subject_type = 'service_account' AND subject_id > ?1 AND ${ULID_LIKE} AND ?3 IS ?3 ORDER BY subject_id LIMIT ?2)
      ORDER BY id`,
  };
  const of = phase === "apikeys" ? tenants.keys : tenants.tasks;
  const { results } = await db
    .withSession("first-primary")
    .prepare(queries[phase])
    .bind(after, limit, of === null ? null : JSON.stringify(of), now() - graceMs)
    .all<LookRow>();
  return {
    ids: results.map(({ id }) => id),
    repair: results.filter(({ lacks }) => lacks === 1).map(({ id }) => id),
    remove: results.filter(({ tuples }) => tuples > 0).map(({ id, tuples }) => ({ id, tuples })),
    unattributable: results.filter(({ nobody }) => nobody === 1).length,
  };
}

// ---- repairStatements -------------------------------------------------------------------------------------------------------

const INSERT = `INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms)`;
const NAMED = "IN (SELECT value FROM json_each(?1))";
const STANDS = "ON CONFLICT DO NOTHING";

async function mend(deps: ReconcileDeps, phase: Phase, seen: Seen): Promise<void> {
  const { db, config, now, log } = deps;
  const ids = [...seen.repair, ...seen.remove.map(({ id }) => id)];
  if (ids.length === 0) return;
  const isRemote = config.authzGraph !== "d1";
  // The notifyStatements first: it looks at what is missing, as the repairStatements does.
  const texts = (isRemote ? notifyStatements(phase) : []).concat(repairStatements(phase));
  const nowMs = now();
  const removed = seen.remove.reduce((sum, { tuples }) => sum + tuples, 0);
  await runBatch(db, [
    ...texts.map((text) => db.prepare(text).bind(JSON.stringify(ids), nowMs)),
    auditStatement(deps, {
      action: "authz.reconcile",
      subject: null,
      agentDid: null,
      result: "ok",
      details: { phase, repaired: seen.repair.length, removed, of: named(ids) },
    }),
  ]);
  log.info("authz.reconciled", { phase, repaired: seen.repair.length, removed: seen.remove.length });
}

/** Ids for the audit: each of a few, the first of many. */
function named(ids: readonly string[]): string {
  return ids.length > IDS_NAMED ? `${ids.slice(0, IDS_NAMED).join(" ")} …` : ids.join(" ");
}

/** The statements of a phase: ?1 the ids as JSON, ?2 the time. Each looks at the rows again. */
function repairStatements(phase: Phase): string[] {
  switch (phase) {
    case "tasks": {
      const from = `FROM tasks AS t WHERE t.task_id ${NAMED}`;
      return [
        `${INSERT} SELECT 'task', t.task_id, 'tenant', 'tenant', t.tenant_id, '', ?2 ${from}
           AND NOT ${has("task", "t.task_id", "tenant")} ${STANDS}`,
        `${INSERT} SELECT 'task', t.task_id, 'parent', 'agent', t.agent_did, '', ?2 ${from} ${STANDS}`,
        `${INSERT} SELECT 'task', t.task_id, 'owner',
             CASE WHEN t.creator_user_id IS NOT NULL THEN 'user' ELSE 'service_account' END,
             COALESCE(t.creator_user_id, t.creator_service_account_id), '', ?2 ${from} AND ${NOT_OWNED} AND ${HAS_CREATOR} ${STANDS}`,
      ];
    }
    case "apikeys":
      return [
        `${INSERT} WITH due AS MATERIALIZED (SELECT * FROM api_keys AS k WHERE k.api_key_id ${NAMED} AND ${KEY_LACKS})
           SELECT 'tenant', tenant_id, 'member', 'service_account', service_account_id, '', ?2 FROM due
           UNION ALL SELECT 'agent', agent_did, 'executor', 'service_account', service_account_id, '', ?2 FROM due
           WHERE true ${STANDS}`,
      ];
    case "agents":
      return [
        `${INSERT} WITH due AS MATERIALIZED (SELECT * FROM agents AS a WHERE a.agent_did ${NAMED} AND ${AGENT_LACKS})
           SELECT 'agent', agent_did, 'tenant', 'tenant', tenant_id, '', ?2 FROM due
           UNION ALL SELECT 'agent', agent_did, 'owner', 'user', owner_did, '', ?2 FROM due
           UNION ALL SELECT 'agent', agent_did, 'executor', 'agent', agent_did, '', ?2 FROM due
           UNION ALL SELECT 'tenant', tenant_id, 'member', 'user', owner_did, '', ?2 FROM due
           UNION ALL SELECT 'tenant', tenant_id, 'member', 'agent', agent_did, '', ?2 FROM due
           WHERE true ${STANDS}`,
      ];
    case "task-tuples":
      return [
        `DELETE FROM relationships WHERE object_type = 'task' AND object_id ${NAMED}
           AND NOT EXISTS (SELECT 1 FROM tasks WHERE task_id = object_id) AND ?2 = ?2`,
      ];
    case "key-tuples":
      return [
        `DELETE FROM relationships WHERE subject_id ${NAMED} AND ${KEY_GRANTS}
           AND NOT EXISTS (SELECT 1 FROM api_keys WHERE service_account_id = subject_id) AND ?2 = ?2`,
      ];
  }
}

/** A remote graph hears of repairs and removals by the outbox. */
function notifyStatements(phase: Phase): string[] {
  const into = "INSERT INTO authz_outbox (id, op, object, principal, parent, relation, created_at_ms, due_at_ms)";
  switch (phase) {
    case "tasks":
      return [
        `${into} SELECT 'repair-task-' || t.task_id, 'register', 'task:' || t.task_id,
           COALESCE('user:' || t.creator_user_id, 'service_account:' || t.creator_service_account_id),
           'agent:' || t.agent_did, NULL, ?2, ?2 FROM tasks AS t WHERE t.task_id ${NAMED} ON CONFLICT (id) DO NOTHING`,
      ];
    case "apikeys":
      return [
        `${into} SELECT 'repair-key-' || k.api_key_id, 'register', 'agent:' || k.agent_did, 'service_account:' || k.service_account_id,
           'tenant:' || k.tenant_id, 'executor', ?2, ?2 FROM api_keys AS k WHERE k.api_key_id ${NAMED} AND ${KEY_LACKS}
           ON CONFLICT (id) DO NOTHING`,
      ];
    case "agents":
      return [
        `${into} SELECT 'repair-agent-' || a.agent_did, 'register', 'agent:' || a.agent_did, 'user:' || a.owner_did,
           'tenant:' || a.tenant_id, NULL, ?2, ?2 FROM agents AS a WHERE a.agent_did ${NAMED} AND ${AGENT_LACKS}
           ON CONFLICT (id) DO NOTHING`,
      ];
    case "task-tuples":
      return [
        `${into} SELECT 'remove-task-' || value, 'deregister', 'task:' || value, NULL, NULL, NULL, ?2, ?2
           FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE task_id = value) ON CONFLICT (id) DO NOTHING`,
      ];
    case "key-tuples":
      return [];
  }
}

// ---- one tenant ----------------------------------------------------------------------------------------------------

/** A grant of a service account whose key is gone. */
const KEY_IS_GONE = `${KEY_GRANTS} AND ${ULID_LIKE}
  AND NOT EXISTS (SELECT 1 FROM api_keys WHERE service_account_id = subject_id)`;

/** One tenant's drift, as an SQL expression over ?1, the tenant: what would be repaired, and tuples without a row. */
export const TENANT_DRIFT = `(
  (SELECT COUNT(*) FROM tasks AS t WHERE t.tenant_id = ?1 AND ${TASK_LACKS})
  + (SELECT COUNT(*) FROM api_keys AS k WHERE k.tenant_id = ?1 AND ${KEY_LACKS})
  + (SELECT COUNT(*) FROM agents AS a WHERE a.tenant_id = ?1 AND ${AGENT_LACKS})
  + (SELECT COUNT(*) FROM relationships WHERE object_type = 'tenant' AND object_id = ?1 AND ${KEY_IS_GONE})
  + (SELECT COUNT(*) FROM relationships WHERE object_type = 'agent' AND ${KEY_IS_GONE} AND object_id IN (
      SELECT placed.object_id FROM relationships AS placed WHERE placed.subject_type = 'tenant' AND placed.subject_id = ?1
        AND placed.subject_relation = '' AND placed.object_type = 'agent' AND placed.relation = 'tenant'))
  + (SELECT COUNT(*) FROM relationships AS gone WHERE gone.subject_type = 'tenant' AND gone.subject_id = ?1 AND gone.subject_relation = ''
      AND gone.object_type = 'task' AND gone.relation = 'tenant' AND NOT EXISTS (SELECT 1 FROM tasks WHERE task_id = gone.object_id)))`;
