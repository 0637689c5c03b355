/** What housekeeping does for the relationship graph: drains the outbox of a remote one, and reconciles a page now and then. */
import { drainOutbox } from "../authz/sync/outbox.ts";
import { noteDrift, reconcile } from "../authz/sync/reconcile.ts";
import { remoteGraphOf } from "../authz/sync/remote.ts";
import type { Config, TenantSwitch } from "../config.ts";
import type { Log } from "../telemetry/log.ts";

export const RECONCILE_EVERY_MS = 300_000;
/** A tuple that somebody writes by hand before its row is there is given this time. */
const GRACE_MS = 600_000;

/** Whom the audit names: no caller. */
const BY_ITSELF = { principal: null, origin: null, requestId: null };

/** Where the last page ended and what this pass has seen so far; kept by the object. */
export type Progress = { cursor: string | null; drift: number };

export type GraphDeps = { db: D1Database; config: Config; now: () => number; log: Log };

/** Sends what is due. */
export async function drainGraphOutbox(deps: GraphDeps): Promise<void> {
  const graph = remoteGraphOf(deps.config);
  if (graph !== null) await drainOutbox({ ...deps, graph });
}

/**
 * Reconciles one page, for tenants whose writes go to the graph.
 *
 * @returns where to go on
 */
export async function reconcilePage(deps: GraphDeps, before: Progress | undefined): Promise<Progress> {
  const { fgacTasksDualWrite: tasks, fgacAgentApiKeysDualWrite: keys } = deps.config;
  if (tasks === "off") return { cursor: null, drift: 0 };
  const report = await reconcile(
    { ...deps, ...BY_ITSELF },
    {
      dryRun: false,
      cursor: before?.cursor ?? null,
      graceMs: GRACE_MS,
      tenants: { tasks: tenantsOf(tasks), keys: tenantsOf(keys) },
    },
  );
  const drift = (before?.drift ?? 0) + report.drift;
  if (report.nextCursor !== undefined) return { cursor: report.nextCursor, drift };
  noteDrift(deps, drift);
  return { cursor: null, drift: 0 };
}

/** @returns the tenants that a switch is on for; null for all of them */
function tenantsOf(setting: TenantSwitch): readonly string[] | null {
  if (setting === "on") return null;
  return setting === "off" ? [] : setting;
}
