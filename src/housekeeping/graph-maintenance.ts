/** What housekeeping does for the relationship graph: drains the outbox of a remote one, and reconciles a page now and then. */
import { findUnwrittenTenants } from "../authz/enforcement.ts";
import { removeExpired } from "../authz/store/expiries.ts";
import { drainOutbox } from "../authz/sync/drain.ts";
import { mirrorPages } from "../authz/sync/mirror.ts";
import { noteDrift, reconcile } from "../authz/sync/reconcile.ts";
import { remoteGraphOf } from "../authz/sync/remote.ts";
import type { Config, TenantSwitch } from "../config.ts";
import type { Log } from "../telemetry/log.ts";

export const RECONCILE_EVERY_MS = 300_000;
/** A pass rests so many times as long as it took: at most a tenth of the time is spent reading everything. */
const REST_RATIO = 9;
/** Tenants that one line of the log names. */
const TENANTS_NAMED = 20;
/** A tuple that somebody writes by hand before its row is there is given this time. */
const GRACE_MS = 600_000;

/** Whom the audit names: no caller. */
const BY_ITSELF = { principal: null, origin: null, requestId: null };

/** Where the last page ended and what this pass has seen so far; kept by the object. */
export type Progress = {
  cursor: string | null;
  drift: number;
  /** When this pass began; absent between passes. */
  begunAtMs?: number;
  /** No pass begins before: a pass takes its time over a large installation, and reads every row of it. */
  restUntilMs?: number;
  /** Where the filling of an engine goes on; null or absent: from the beginning. */
  mirror?: string | null;
};

export type GraphDeps = { db: D1Database; config: Config; now: () => number; log: Log };

/** Sends what is due, as far as one round goes. @returns `more` where there is more of it */
export async function drainGraphOutbox(deps: GraphDeps): Promise<"done" | "more"> {
  const graph = remoteGraphOf(deps.config);
  if (graph === null) return "done";
  return (await drainOutbox({ ...deps, graph })).hasMore ? "more" : "done";
}

/** Reconciles one page of D1, and some pages of an engine with D1; see {@link reconcileRows}. */
export async function reconcilePage(deps: GraphDeps, before: Progress = { cursor: null, drift: 0 }): Promise<Progress> {
  const after = await reconcileRows(deps, before);
  const graph = remoteGraphOf(deps.config);
  return graph === null ? after : { ...after, mirror: await mirrorPages({ ...deps, graph }, before.mirror ?? null) };
}

/**
 * Reconciles one page, for tenants whose writes go to the graph. A pass goes on page after page, and rests afterwards for
 * {@link REST_RATIO} times as long as it took.
 *
 * @returns where to go on; a cursor of null where the pass has ended
 */
async function reconcileRows(deps: GraphDeps, before: Progress): Promise<Progress> {
  const expired = await removeExpired(deps);
  if (expired > 0) deps.log.info("authz.expired_removed", { count: expired });
  const nowMs = deps.now();
  if (before.cursor === null && nowMs < (before.restUntilMs ?? 0)) return before;
  if (before.cursor === null) await reportUnwrittenTenants(deps);
  const { fgacTasksDualWrite: tasks, fgacAgentApiKeysDualWrite: keys } = deps.config;
  if (tasks === "off") return { cursor: null, drift: 0 };
  const report = await reconcile(
    { ...deps, ...BY_ITSELF },
    {
      dryRun: false,
      cursor: before.cursor,
      graceMs: GRACE_MS,
      tenants: { tasks: tenantsOf(tasks), keys: tenantsOf(keys) },
    },
  );
  const drift = before.drift + report.drift;
  const begunAtMs = before.cursor === null ? nowMs : (before.begunAtMs ?? nowMs);
  if (report.nextCursor !== undefined) return { cursor: report.nextCursor, drift, begunAtMs };
  noteDrift(deps, drift);
  const endedAtMs = deps.now();
  return { cursor: null, drift: 0, restUntilMs: endedAtMs + REST_RATIO * (endedAtMs - begunAtMs) };
}

/** Names the tenants for which the graph decides and whose writes do not reach it: nothing new is made for them. */
async function reportUnwrittenTenants({ db, config, log }: GraphDeps): Promise<void> {
  const { tenantIds, isAll } = await findUnwrittenTenants(db, config);
  if (tenantIds.length === 0) return;
  log.error("authz.enforced_without_dual_write", {
    tenants: tenantIds.slice(0, TENANTS_NAMED).join(" "),
    count: tenantIds.length,
    isAll,
    settings: "FGAC_TASKS_DUAL_WRITE FGAC_AGENT_API_KEYS_DUAL_WRITE",
  });
}

/** @returns the tenants that a switch is on for; null for all of them */
function tenantsOf(setting: TenantSwitch): readonly string[] | null {
  if (setting === "on") return null;
  return setting === "off" ? [] : setting;
}
