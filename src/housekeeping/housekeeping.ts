/** The second Durable Object: what is done on time rather than on request. One, off the request path, driven by its alarm. */
import { DurableObject } from "cloudflare:workers";
import { auditRetentionStatements } from "../identity/audit.ts";
import { identityRetentionStatements } from "../identity/retention.ts";
import { startDeadline } from "../resilience/deadline.ts";
import { runtimeOf } from "../runtime.ts";
import { createLog, errorFields, type Log } from "../telemetry/log.ts";
import { retryOwedFences, retryOwedNotifications } from "../trust/debts.ts";
import type { Batch } from "../telemetry/meter.ts";
import { pruneTickets } from "../trust/ticket-store.ts";
import { drainGraphOutbox, type Progress, RECONCILE_EVERY_MS, reconcilePage } from "./graph.ts";
import { bringRevocations } from "./revocations.ts";
import { type Aggregate, createAggregate } from "./metrics.ts";

/** How often it looks. What a request left owed is never older than this and a little. */
const EVERY_MS = 15_000;
const RETENTION_EVERY_MS = 3_600_000;
const PRUNED_AT_ONCE = 1_000;

type Job = { name: string; run: () => Promise<unknown> };

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
    await this.ctx.storage.setAlarm(Date.now() + EVERY_MS);
    for (const { name, run } of this.#jobs(Date.now())) {
      try {
        // oxlint-disable-next-line no-await-in-loop -- one after the other, so that housekeeping never crowds requests out
        await run();
      } catch (error) {
        this.#log.error("housekeeping.failed", { job: name, ...errorFields(error) });
      }
    }
  }

  #jobs(nowMs: number): Job[] {
    const db = this.env.DB;
    const debts = { db, gates: { of: (did: string) => this.env.GATE.getByName(did) }, now: Date.now, log: this.#log };
    const { config } = runtimeOf(this.env);
    const graph = { db, config, now: Date.now, log: this.#log };
    const jobs: Job[] = [
      { name: "owed notifications", run: () => retryOwedNotifications(debts) },
      { name: "owed fences", run: () => retryOwedFences(debts) },
      { name: "graph outbox", run: () => drainGraphOutbox(graph) },
    ];
    // An embedded registry has told the gates itself; the list of another one is brought to them here.
    if (config.registryUrl !== "embedded" && this.#isDue("revocations", config.crlRefreshMs, nowMs)) {
      jobs.push({ name: "revocations", run: () => this.#bringRevocations() });
    }
    if (this.#isDue("reconciliation", RECONCILE_EVERY_MS, nowMs)) {
      const { kv } = this.ctx.storage;
      jobs.push({
        name: "reconciliation",
        run: async () => kv.put("reconciliation", await reconcilePage(graph, kv.get<Progress>("reconciliation"))),
      });
    }
    if (this.#isDue("retention", RETENTION_EVERY_MS, nowMs)) {
      jobs.push(
        { name: "audit retention", run: () => db.batch(auditRetentionStatements(db, nowMs - config.auditRetentionMs)) },
        { name: "registry retention", run: () => db.batch(identityRetentionStatements(db, nowMs)) },
        { name: "batches of numbers", run: async () => this.#aggregate.prune(nowMs) },
        { name: "pairing tickets", run: () => pruneTickets(db, nowMs, PRUNED_AT_ONCE) },
      );
    }
    return jobs;
  }

  async #bringRevocations(): Promise<void> {
    const { config, registry, registryScope } = runtimeOf(this.env);
    const deadline = startDeadline(config.authDeadlineMs, Date.now);
    const background = (work: Promise<unknown>): void => this.ctx.waitUntil(work);
    try {
      const scope = registryScope({ now: Date.now, log: this.#log, background, deadline });
      await bringRevocations(this.ctx.storage.sql, {
        fetchList: () => registry.crl.fetchList(scope),
        endTokens: (agentDid, tokens) => this.env.GATE.getByName(agentDid).endTokens(tokens, "revoked by the registry"),
        now: Date.now,
        log: this.#log,
      });
    } finally {
      deadline.end();
    }
  }

  /** Whether so long has passed since the last time; remembers this time. */
  #isDue(name: string, everyMs: number, nowMs: number): boolean {
    const last = this.ctx.storage.kv.get<number>(`last ${name}`) ?? 0;
    if (nowMs - last < everyMs) return false;
    this.ctx.storage.kv.put(`last ${name}`, nowMs);
    return true;
  }
}
