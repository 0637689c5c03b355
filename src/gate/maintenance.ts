/** What a gate does whenever it commits, and when it must wake to do so: pushes, hand-overs, reports, and forgetting what is past. */
import type { AuditOutbox } from "../audit/outbox.ts";
import type { Config } from "../config.ts";
import type { Log } from "../telemetry/log.ts";
import { count } from "../telemetry/metrics.ts";
import type { AgentDid } from "../wire/did.ts";
import type { Drift } from "./admission/clock-drift.ts";
import type { Rate } from "./admission/rate-limit.ts";
import type { Outbox } from "./outbox/outbox.ts";
import type { Arrivals } from "./queue/arrivals.ts";
import type { Queue } from "./queue/queue.ts";
import type { Relay } from "./relay/relay.ts";
import type { Sockets } from "./relay/sockets.ts";
import type { GroupCommit } from "./storage/group-commit.ts";

/** A held message is handed over at the latest by then, also when the process has died in between. */
const SAFETY_ALARM_MS = 2_000;
const HOUSEKEEPING_AFTER_MS = 60_000;

/** Work that goes on by itself once it is started: hand-overs, reports, the audit's way to D1. */
export type BackgroundWork = {
  /** Starts what is due. */
  start(nowMs: number): void;
  /** When more is due (ms since the epoch); null when nothing is pending. */
  nextDueMs(nowMs: number): number | null;
  /** When something has to be written down before the gate may sleep; null for nothing. An alarm brings it, no timer. */
  nextRecordMs?(): number | null;
};

export type Maintenance = {
  /** The last part of every group: pushes what can be pushed, starts what is due, and makes sure to be woken. */
  beforeCommit(effects: number): void;
  /** Something was written outside a group: one follows, and the alarm in the same commit, should the process die before it. */
  wake(): void;
  /** Takes what the platform says of the alarm at a waking: when it is due (ms since the epoch), or null. */
  alarmIsSetFor(atMs: number | null): void;
  /** Does what is due. */
  alarm(): Promise<void>;
};

export type MaintenanceDeps = {
  self: AgentDid;
  config: Pick<Config, "skewWarnSeconds" | "skewMaxSeconds">;
  queue: Pick<Queue, "expire" | "nextDueMs" | "hasDue">;
  arrivals: Pick<Arrivals, "isAwaited" | "notify">;
  outbox: Pick<Outbox, "isHolding">;
  sockets: Pick<Sockets, "byId" | "size">;
  audit: Pick<AuditOutbox, "record" | "isEmpty">;
  drift: Pick<Drift, "settle">;
  rate: Pick<Rate, "save">;
  relay: Pick<Relay, "push" | "sweep" | "broadcast" | "nextDueMs">;
  works: readonly BackgroundWork[];
  commits: GroupCommit;
  prune: (nowMs: number) => void;
  nextPruneMs: () => number | null;
  setAlarm: (atMs: number) => void;
  now: () => number;
  log: Log;
  /** Sends the numbers on, in the background. */
  flushNumbers: () => void;
};

/** @returns the maintenance of one gate. */
export function createMaintenance(deps: MaintenanceDeps): Maintenance {
  const { self, queue, outbox, sockets, audit, relay, works, commits, log } = deps;
  let alarmAtMs = Infinity;
  /** When what is past is forgotten next; after a waking, whenever the alarm comes. */
  let pruneDueAtMs = Infinity;
  /** The group at hand is the alarm's own: it must not call for the next one, or an idle gate never slept. */
  let isPruning = false;

  /** A drifting clock is reported before requests are refused for it. */
  const reportDrift = (nowMs: number): void => {
    const crossing = deps.drift.settle(nowMs);
    if (crossing === null) return;
    const { skewWarnSeconds: warnSeconds, skewMaxSeconds: maxSeconds } = deps.config;
    const details = { ...crossing, warnSeconds, maxSeconds };
    const subject = { subject: `agent:${self}`, agentDid: self };
    const byItself = { principal: null, origin: null, requestId: null };
    audit.record({ action: "agent.clock_drift", ...subject, result: "warned", details }, byItself, nowMs);
    relay.broadcast("agent.clock_drift", { agentDid: self, ...details });
    log.warn("agent.clock_drift", details);
    count("sallyport_agent_clock_drifts", { direction: crossing.smoothedMs < 0 ? "behind" : "ahead" });
    deps.flushNumbers();
  };

  /** When the next of them is due; null when nothing is pending. */
  const nextWorkMs = (nowMs: number): number | null => {
    const dues = works.map((work) => work.nextDueMs(nowMs)).filter((due) => due !== null);
    return dues.length === 0 ? null : Math.min(...dues);
  };

  const nextRecordMs = (): number => Math.min(...works.map((work) => work.nextRecordMs?.() ?? Infinity));

  /** Sets the alarm where it is later than what is due first. One that comes early looks again. */
  const arm = (nowMs: number): void => {
    const sweepMs = queue.nextDueMs(sockets.size() > 0 || deps.arrivals.isAwaited(), nowMs);
    const workMs = nextWorkMs(nowMs);
    const dueMs = Math.min(
      outbox.isHolding() || !audit.isEmpty() || workMs !== null ? nowMs + SAFETY_ALARM_MS : Infinity,
      sweepMs ?? Infinity,
      relay.nextDueMs() ?? Infinity,
      nextRecordMs(),
      pruneDueAtMs,
    );
    if (dueMs >= alarmAtMs) return;
    alarmAtMs = Math.max(dueMs, nowMs + 1);
    deps.setAlarm(alarmAtMs);
  };

  return {
    beforeCommit(effects) {
      const nowMs = deps.now();
      relay.push(nowMs);
      if (deps.arrivals.isAwaited() && queue.hasDue(nowMs)) deps.arrivals.notify();
      deps.rate.save();
      reportDrift(nowMs);
      for (const work of works) work.start(nowMs);
      if (effects > 0 && !isPruning) pruneDueAtMs = Math.min(pruneDueAtMs, nowMs + HOUSEKEEPING_AFTER_MS);
      isPruning = false;
      const workMs = nextWorkMs(nowMs);
      if (workMs !== null) commits.wake(Math.max(1, workMs - nowMs));
      arm(nowMs);
    },

    wake() {
      commits.wake();
      arm(deps.now());
    },

    alarmIsSetFor(atMs) {
      alarmAtMs = atMs ?? Infinity;
    },

    async alarm() {
      alarmAtMs = Infinity;
      await commits.commit(() => {
        const nowMs = deps.now();
        relay.sweep(nowMs);
        queue.expire((socketId) => sockets.byId(socketId) !== null, nowMs);
        if (pruneDueAtMs === Infinity || pruneDueAtMs <= nowMs) {
          deps.prune(nowMs);
          isPruning = true;
          pruneDueAtMs = Math.max(deps.nextPruneMs() ?? Infinity, nowMs + 1_000);
        }
      });
    },
  };
}
