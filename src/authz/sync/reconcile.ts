/**
 * Reconciliation: rows that have no tuples get them from their own columns, tuples whose row is gone go, and what cannot be
 * attributed is reported. In pages, so that it can be stopped and resumed; every repair reads the rows anew when it writes, so
 * that what was deleted meanwhile gets no tuple.
 */
import type { Config } from "../../config.ts";
import { commitFenced, type Fence } from "../../database/batch.ts";
import { type AuditedCall, auditStatement } from "../../audit/entry.ts";
import type { Log } from "../../telemetry/log.ts";
import { gauge } from "../../telemetry/metrics.ts";
import { readAll } from "../../database/read.ts";
import { ProxyError } from "../../wire/problem.ts";
import { countPending } from "./outbox.ts";
import { lookStatement, notifyStatements, type Phase, PHASES, repairStatements } from "./reconcile-queries.ts";

/** Rows and objects that one page looks at. */
export const SCANNED_AT_ONCE = 2_000;
/** How many of them an entry of the audit names. */
const IDS_NAMED = 10;

/** Beside what it works with: whom the audit names for what it does. */
export type ReconcileDeps = AuditedCall & {
  db: D1Database;
  config: Pick<Config, "authzGraph">;
  log: Log;
  /** What repairs are fenced by; absent where nobody has asked for them. */
  authority?: Fence;
};

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
  /** Tasks whose owner is unknown: made by the operator, or before creators were kept. */
  unattributable: number;
  drift: number;
  /** Rows of the outbox that a remote graph refused permanently, on the last page; absent where there are none. */
  parked?: number;
  nextCursor?: string;
};

type PageOptions = ReconcileOptions & { limit: number };

/** @returns the phase and the last id of a page, or null for what is no cursor */
export function parseReconcileCursor(cursor: string): { phase: Phase; after: string } | null {
  const colon = cursor.indexOf(":");
  const phase = PHASES.find((each) => each === cursor.slice(0, colon));
  return phase === undefined ? null : { phase, after: cursor.slice(colon + 1) };
}

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
      if (!options.dryRun) await repair(deps, phase, seen, options.graceMs);
      const isLast = seen.ids.length < left;
      left -= seen.ids.length;
      after = seen.ids.at(-1) ?? after;
      if (isLast) break;
    }
  }
  const parked = deps.config.authzGraph === "d1" ? 0 : (await countPending(deps.db)).parked;
  return { ...total(), ...(parked === 0 ? {} : { parked }) };
}

/** Sets the gauge to what a whole pass found, and warns where that is anything. */
export function noteDrift(deps: Pick<ReconcileDeps, "log">, drift: number): void {
  gauge("task_fgac_drift", {}, drift);
  if (drift > 0) deps.log.warn("authz.drift", { drift });
}

/** What one phase saw in one page: ids in their order, and those that need something done. */
type Seen = { ids: string[]; repair: string[]; remove: { id: string; tuples: number }[]; unattributable: number };

async function look({ db, now }: ReconcileDeps, phase: Phase, after: string, options: PageOptions): Promise<Seen> {
  const { tenants, graceMs, limit } = options;
  const among = phase === "apikeys" ? tenants.keys : tenants.tasks;
  const wanted = { after, limit, tenants: among, madeBeforeMs: now() - graceMs };
  const found = await readAll(db.withSession("first-primary"), lookStatement(phase, wanted));
  return {
    ids: found.map(({ id }) => id),
    repair: found.filter(({ lacks }) => lacks === 1).map(({ id }) => id),
    remove: found.filter(({ tuples }) => tuples > 0).map(({ id, tuples }) => ({ id, tuples })),
    unattributable: found.filter(({ ownerless }) => ownerless === 1).length,
  };
}

async function repair(deps: ReconcileDeps, phase: Phase, seen: Seen, graceMs: number): Promise<void> {
  const ids = [...seen.repair, ...seen.remove.map(({ id }) => id)];
  if (ids.length === 0) return;
  const nowMs = deps.now();
  const list = JSON.stringify(ids);
  const removed = seen.remove.reduce((sum, { tuples }) => sum + tuples, 0);
  const committed = await commitFenced(deps.db, deps.authority ?? null, [
    ...(deps.config.authzGraph === "d1" ? [] : notifyStatements(phase, list, nowMs)),
    ...repairStatements(phase, list, { nowMs, madeBeforeMs: nowMs - graceMs }),
    auditStatement(deps, {
      action: "authz.reconcile",
      subject: null,
      agentDid: null,
      result: "ok",
      details: { phase, repaired: seen.repair.length, removed, of: named(ids) },
    }),
  ]);
  if (!committed.ok) throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "the authority ended before the commit" });
  deps.log.info("authz.reconciled", { phase, repaired: seen.repair.length, removed: seen.remove.length });
}

/** Ids for the audit: each of a few, the first of many. */
function named(ids: readonly string[]): string {
  return ids.length > IDS_NAMED ? `${ids.slice(0, IDS_NAMED).join(" ")} …` : ids.join(" ");
}
