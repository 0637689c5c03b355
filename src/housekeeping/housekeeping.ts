/** The second Durable Object: what is done on time rather than on request. One, off the request path, driven by its alarm. */
import { DurableObject } from "cloudflare:workers";
import { withDeadline } from "../resilience/deadline.ts";
import { runtimeOf } from "../runtime.ts";
import { createLog, errorFields, type Log } from "../telemetry/log.ts";
import type { Batch } from "../telemetry/meter.ts";
import { createJobs, type Job } from "./jobs.ts";
import { type Aggregate, createAggregate } from "./metrics-aggregate.ts";
import { createRevocationPushes, type RevocationPushes } from "./revocation-push.ts";
import { isDue, type JobOutcome, ROUND_MS, type Turn, turnBegun, turnEnded } from "./schedule.ts";

/** When housekeeping looks again where a round's share was not enough. */
const SOON_MS = 1_000;
/** A job that has not ended by then has failed, and the round goes on with the next: the round itself never hangs. */
export const JOB_TIMEOUT_MS = 60_000;

/** One object of this class, named `main`, serves an installation. */
export class Housekeeping extends DurableObject<Env> {
  readonly #log: Log = createLog({ object: "housekeeping" });

  /** Made at the first use: an object that only wakes by its alarm needs none. */
  #numbers: Aggregate | null = null;
  #pushes: RevocationPushes | null = null;

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

  /** Makes sure that the alarm is set: the platform gives one up that has failed six times. */
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

  #jobs(nowMs: number): Job[] {
    return createJobs(
      {
        env: this.env,
        runtime: runtimeOf(this.env),
        kv: this.ctx.storage.kv,
        aggregate: () => this.#aggregate,
        pushes: () => (this.#pushes ??= createRevocationPushes(this.ctx.storage.sql)),
        background: (work) => this.ctx.waitUntil(work),
        log: this.#log,
      },
      nowMs,
    );
  }

  /**
   * Runs a job that is due. What its turn came to is kept, for its next one.
   *
   * @returns that, or null where it was not due
   */
  async #takeTurn({ name, everyMs, run }: Job, nowMs: number): Promise<JobOutcome | null> {
    const { kv } = this.ctx.storage;
    const key = `turn ${name}`;
    const last = everyMs === 0 ? undefined : kv.get<Turn>(key);
    if (!isDue(last, everyMs, nowMs)) return null;
    const turn = turnBegun(last, nowMs);
    if (everyMs > 0) kv.put(key, turn);
    try {
      const outcome = await withDeadline(JOB_TIMEOUT_MS, run);
      if (everyMs > 0) kv.put(key, turnEnded(turn, outcome));
      return outcome;
    } catch (error) {
      this.#log.error("housekeeping.failed", { job: name, ...errorFields(error) });
      return "failed";
    }
  }
}
