/** The second Durable Object: what is done on time rather than on request. One, off the request path, driven by its alarm. */
import { DurableObject } from "cloudflare:workers";
import { auditRetentionStatements } from "../audit/retention.ts";
import { mostChanged, runBatch } from "../database/batch.ts";
import { pruneIdentity } from "../identity/retention.ts";
import { startDeadline } from "../resilience/deadline.ts";
import { runtimeOf } from "../runtime.ts";
import { createLog, errorFields, type Log } from "../telemetry/log.ts";
import type { Batch } from "../telemetry/meter.ts";
import { retryPendingFences } from "../trust/fences.ts";
import { retryPendingNotifications } from "../trust/notifications.ts";
import { pruneTickets } from "../trust/ticket-store.ts";
import { err } from "../wire/result.ts";
import { drainGraphOutbox, type Progress, RECONCILE_EVERY_MS, reconcilePage } from "./graph-maintenance.ts";
import { type Aggregate, createAggregate } from "./metrics-aggregate.ts";
import { pruneInPieces } from "./pruning.ts";
import { bringRevocations } from "./revocation-push.ts";
import { isDue, type Outcome, ROUND_MS, type Turn, turnBegun, turnEnded } from "./schedule.ts";

const RETENTION_EVERY_MS = 3_600_000;
/** When housekeeping looks again where a round's share was not enough. */
const SOON_MS = 1_000;
/** What fetching a registry's keys and list may take beyond the calls themselves. */
const FETCH_MARGIN_MS = 5_000;

/** `everyMs` 0: in each round. */
type Job = { name: string; everyMs: number; run: () => Promise<Outcome> };

export class Housekeeping extends DurableObject<Env> {
  readonly #log: Log = createLog({ object: "housekeeping" });

  /** Made at the first use: an object that only wakes by its alarm needs none. */
  #numbers: Aggregate | null = null;

  get #aggregate(): Aggregate {
    return (this.#numbers ??= createAggregate(this.ctx.storage));
  }

  /**
   * Takes a batch of an isolate's numbers, each once by its id; on disk before the answer.
   *
   * @param batch JSON text of a {@link Batch}
   */
  async addNumbers(batch: string): Promise<void> {
    this.#aggregate.add(JSON.parse(batch) as Batch, Date.now());
  }

  /** @returns the aggregate as JSON text of a `Snapshot` */
  async numbers(): Promise<string> {
    return JSON.stringify(this.#aggregate.read());
  }

  /** Makes sure that the alarm is set. */
  async arm(): Promise<void> {
    if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(Date.now() + 1);
  }

  override async alarm(): Promise<void> {
    // Armed again before the work: a fault in one round does not end the rounds.
    await this.ctx.storage.setAlarm(Date.now() + ROUND_MS);
    const nowMs = Date.now();
    let isMoreLeft = false;
    for (const job of this.#jobs(nowMs)) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other, so that housekeeping never crowds requests out
      if ((await this.#takeTurn(job, nowMs)) === "more") isMoreLeft = true;
    }
    if (isMoreLeft) await this.ctx.storage.setAlarm(Date.now() + SOON_MS);
  }

  /**
   * Runs a job that is due. What its turn came to is kept, for its next one.
   *
   * @returns that, or null where it was not due
   */
  async #takeTurn({ name, everyMs, run }: Job, nowMs: number): Promise<Outcome | null> {
    const { kv } = this.ctx.storage;
    const key = `turn ${name}`;
    const last = everyMs === 0 ? undefined : kv.get<Turn>(key);
    if (!isDue(last, everyMs, nowMs)) return null;
    const turn = turnBegun(last, nowMs);
    if (everyMs > 0) kv.put(key, turn);
    try {
      const outcome = await run();
      if (everyMs > 0) kv.put(key, turnEnded(turn, outcome));
      return outcome;
    } catch (error) {
      this.#log.error("housekeeping.failed", { job: name, ...errorFields(error) });
      return "failed";
    }
  }

  #jobs(nowMs: number): Job[] {
    const db = this.env.DB;
    const debts = { db, gates: { of: (did: string) => this.env.GATE.getByName(did) }, now: Date.now, log: this.#log };
    const { config } = runtimeOf(this.env);
    const graph = { db, config, now: Date.now, log: this.#log };
    const { kv } = this.ctx.storage;
    const inEachRound = (name: string, run: () => Promise<unknown>): Job => ({ name, everyMs: 0, run: done(run) });
    const retention = (name: string, prune: (limit: number) => Promise<number>): Job => ({
      name,
      everyMs: RETENTION_EVERY_MS,
      run: () => pruneInPieces(prune),
    });
    const auditBeforeMs = nowMs - config.auditRetentionMs;
    return [
      inEachRound("owed notifications", () => retryPendingNotifications(debts)),
      inEachRound("owed fences", () => retryPendingFences(debts)),
      inEachRound("graph outbox", () => drainGraphOutbox(graph)),
      // An embedded registry has told the gates itself; the list of another one is brought to them here.
      ...(config.registryUrl === "embedded"
        ? []
        : [{ name: "revocations", everyMs: config.crlRefreshMs, run: () => this.#bringRevocations() }]),
      {
        name: "reconciliation",
        everyMs: RECONCILE_EVERY_MS,
        run: done(async () => kv.put("reconciliation", await reconcilePage(graph, kv.get<Progress>("reconciliation")))),
      },
      retention("audit retention", async (limit) =>
        mostChanged(await runBatch(db, auditRetentionStatements(auditBeforeMs, limit))),
      ),
      retention("registry retention", (limit) => pruneIdentity(db, nowMs, limit)),
      retention("pairing tickets", (limit) => pruneTickets(db, nowMs, limit)),
      // The object's own, and no more than isolates hand over in an hour.
      { name: "batches of numbers", everyMs: RETENTION_EVERY_MS, run: done(async () => this.#aggregate.prune(nowMs)) },
    ];
  }

  async #bringRevocations(): Promise<Outcome> {
    const { config, registry, registryScope } = runtimeOf(this.env);
    // Nobody waits for this: it has the time that its calls have, whatever a request is given.
    const deadline = startDeadline(2 * (config.registryTimeoutMs + config.storeTimeoutMs) + FETCH_MARGIN_MS, Date.now);
    const background = (work: Promise<unknown>): void => this.ctx.waitUntil(work);
    try {
      const scope = registryScope({ now: Date.now, log: this.#log, background, deadline });
      const isAllBrought = await bringRevocations(this.ctx.storage.sql, {
        async fetchList() {
          // First, so that the keys do not come out of the list's time.
          const keys = await registry.keys.warm(scope);
          return keys.ok ? registry.crl.fetchList(scope) : err({ reason: `keys: ${keys.error.reason}` });
        },
        endTokens: (agentDid, tokens) => this.env.GATE.getByName(agentDid).endTokens(tokens, "revoked by the registry"),
        listMaxAgeMs: config.crlMaxAgeMs,
        now: Date.now,
        log: this.#log,
      });
      return isAllBrought ? "done" : "failed";
    } finally {
      deadline.end();
    }
  }
}

/** For work whose result says nothing about whether it is through. */
function done(run: () => Promise<unknown>): () => Promise<Outcome> {
  return async () => {
    await run();
    return "done";
  };
}
