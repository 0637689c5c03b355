/** What housekeeping does, in the order of a round: first what others wait for, then what only takes space. */
import { cleanUpBatch, type CleanupDeps } from "../apikeys/cleanup.ts";
import { auditRetentionStatements } from "../audit/retention.ts";
import { settleAuditShares } from "../audit/shares.ts";
import { mostChanged, runBatch } from "../database/batch.ts";
import { execute } from "../database/read.ts";
import { dateListStatement } from "../identity/documents/revocation-list.ts";
import { pruneIdentity } from "../identity/retention.ts";
import { startDeadline } from "../resilience/deadline.ts";
import type { RoundLimits, RoundReport } from "../resilience/round.ts";
import type { Runtime } from "../runtime.ts";
import type { Log } from "../telemetry/log.ts";
import { retryPendingFences } from "../trust/fences.ts";
import { GATES_PER_FENCE_MAX, retryPendingGroupFences } from "../trust/groups/fences.ts";
import { pruneGroupTokens } from "../trust/groups/membership.ts";
import { retryPendingNotifications } from "../trust/notifications.ts";
import { pruneTickets } from "../trust/ticket-store.ts";
import { drainGraphOutbox, type Progress, RECONCILE_EVERY_MS, reconcilePage } from "./graph-maintenance.ts";
import type { Aggregate } from "./metrics-aggregate.ts";
import { PIECES_A_ROUND, pruneInPieces } from "./pruning.ts";
import type { RevocationPushes } from "./revocation-push.ts";
import type { JobOutcome } from "./schedule.ts";

const LIST_DATED_EVERY_MS = 60_000;
const RETENTION_EVERY_MS = 3_600_000;
/** What fetching a registry's keys and list may take beyond the calls themselves. */
const FETCH_MARGIN_MS = 5_000;

/**
 * What a job that calls gates may take of a round. All of them together make some 400 calls, far below what the platform allows an
 * invocation, and a gate that hangs takes 5 s of its own job.
 */
const CALLS = { parallel: 8, durationMs: 20_000, callTimeoutMs: 5_000 } as const;
export const JOB_LIMITS = {
  notifications: { ...CALLS, calls: 40 },
  fences: { ...CALLS, calls: 60 },
  groupFences: { ...CALLS, calls: 2 * GATES_PER_FENCE_MAX },
  revocations: { ...CALLS, parallel: 16, calls: 100 },
} as const satisfies Record<string, RoundLimits>;

/** `everyMs` 0: in each round. */
export type Job = { readonly name: string; readonly everyMs: number; readonly run: () => Promise<JobOutcome> };

export type JobDeps = {
  readonly env: Env;
  readonly runtime: Pick<Runtime, "config" | "registry" | "registryScope">;
  readonly kv: SyncKvStorage;
  readonly aggregate: () => Aggregate;
  readonly pushes: () => RevocationPushes;
  readonly background: (work: Promise<unknown>) => void;
  readonly log: Log;
};

function eachRound(name: string, run: () => Promise<JobOutcome>): Job {
  return { name, everyMs: 0, run };
}

function retention(name: string, prune: (limit: number) => Promise<number>): Job {
  return { name, everyMs: RETENTION_EVERY_MS, run: () => pruneInPieces(prune) };
}

/** @returns the jobs of a round that begins at `nowMs` (milliseconds since 1970) */
export function createJobs(deps: JobDeps, nowMs: number): Job[] {
  const { env, runtime, kv, aggregate, log } = deps;
  const { config } = runtime;
  const db = env.DB;
  const gates = { of: (did: string) => env.GATE.getByName(did) };
  const trust = { db, gates, now: Date.now, log };
  const graph = { db, config, now: Date.now, log };
  const auditBeforeMs = nowMs - config.auditRetentionMs;
  return [
    eachRound("pending notifications", () =>
      retryPendingNotifications(trust, JOB_LIMITS.notifications).then(outcomeOf),
    ),
    eachRound("pending fences", () => retryPendingFences(trust, JOB_LIMITS.fences).then(outcomeOf)),
    eachRound("pending fences of groups", () => retryPendingGroupFences(trust, JOB_LIMITS.groupFences).then(outcomeOf)),
    eachRound("graph outbox", () => drainGraphOutbox(graph)),
    ...(config.registryUrl === "embedded" ? [datingJob(db)] : revocationJobs(deps)),
    {
      name: "reconciliation",
      everyMs: RECONCILE_EVERY_MS,
      run: async () => {
        const progress = await reconcilePage(graph, kv.get<Progress>("reconciliation"));
        kv.put("reconciliation", progress);
        return progress.cursor === null && (progress.mirror ?? null) === null ? "done" : "more";
      },
    },
    eachRound("keys of ended makers", () => cleanUpKeys(graph)),
    retention("audit retention", async (limit) =>
      mostChanged(await runBatch(db, auditRetentionStatements(auditBeforeMs, limit))),
    ),
    retention("shares of the audit", (limit) => settleAuditShares(db, nowMs, limit)),
    retention("registry retention", (limit) => pruneIdentity(db, nowMs, limit)),
    retention("pairing tickets", (limit) => pruneTickets(db, nowMs, limit)),
    retention("join tokens of groups", (limit) => pruneGroupTokens(db, nowMs, limit)),
    // The object's own, and no more than isolates hand over in an hour.
    { name: "batches of numbers", everyMs: RETENTION_EVERY_MS, run: done(async () => aggregate().prune(nowMs)) },
  ];
}

/** Dates the embedded registry's list; that registry ends tokens in their gates itself. */
function datingJob(db: D1Database): Job {
  const date = done(() => execute(db, dateListStatement(Date.now())));
  return { name: "date of the revocation list", everyMs: LIST_DATED_EVERY_MS, run: date };
}

/** Deletes the rows of keys that ends have left behind, beyond what their calls deleted themselves. */
async function cleanUpKeys(deps: CleanupDeps): Promise<JobOutcome> {
  for (let batch = 0; batch < PIECES_A_ROUND; batch += 1) {
    // oxlint-disable-next-line no-await-in-loop -- batch after batch, so that requests come in between
    if ((await cleanUpBatch(deps, null)) === "done") return "done";
  }
  return "more";
}

/** Takes an external registry's list at its own interval, and pushes what of it is due in each round. */
function revocationJobs({ env, runtime, pushes, background, log }: JobDeps): Job[] {
  const { config, registry, registryScope } = runtime;
  const endTokens = (agentDid: string, tokens: { jti: string; expMs: number }[]): Promise<void> =>
    env.GATE.getByName(agentDid).endTokens(tokens, "revoked by the registry");
  const take = async (): Promise<JobOutcome> => {
    // No request waits for this: it has the time that its calls have, whatever a request is given.
    const deadline = startDeadline(2 * (config.registryTimeoutMs + config.storeTimeoutMs) + FETCH_MARGIN_MS, Date.now);
    try {
      const scope = registryScope({ now: Date.now, log, background, deadline });
      // The keys first, so that they do not come out of the list's time.
      const keys = await registry.keys.warm(scope);
      const list = keys.ok ? await registry.crl.fetchList(scope) : keys;
      if (!list.ok) {
        log.warn("revocations.not_fetched", { reason: keys.ok ? list.error.reason : `keys: ${list.error.reason}` });
        return "failed";
      }
      pushes().take(list.value.revocations, Date.now());
      return "done";
    } finally {
      deadline.end();
    }
  };
  const { crlMaxAgeMs: listMaxAgeMs } = config;
  return [
    { name: "revocation list", everyMs: config.crlRefreshMs, run: take },
    {
      name: "revocations",
      everyMs: 0,
      run: async () =>
        outcomeOf(await pushes().push(JOB_LIMITS.revocations, { endTokens, listMaxAgeMs, now: Date.now, log })),
    },
  ];
}

/** Failed items have their own time to come back; those that were not come to are next, and soon. */
function outcomeOf({ left }: RoundReport): JobOutcome {
  return left > 0 ? "more" : "done";
}

/** For work whose result says nothing about whether more is left. */
function done(run: () => Promise<unknown>): () => Promise<JobOutcome> {
  return async () => {
    await run();
    return "done";
  };
}
