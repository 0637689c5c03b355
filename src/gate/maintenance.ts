/** What a gate does whenever it commits, and when it must wake to do so: pushes, hand-overs, reports, and forgetting what is past. */
import type { Config } from "../config.ts";
import type { Log } from "../telemetry/log.ts";
import { count } from "../telemetry/metrics.ts";
import type { AgentDid } from "../wire/did.ts";
import type { GroupCommit } from "./storage/group-commit.ts";
import type { GateState } from "./state.ts";
import type { Relay } from "./relay/connection.ts";

/** A held message is looked after at the latest by then, also when the process has died in between. */
const SAFETY_ALARM_MS = 2_000;
const HOUSEKEEPING_AFTER_MS = 60_000;

/** Work that goes on by itself once it is started: hand-overs, reports, the audit's way to D1. */
export type BackgroundWork = { start(nowMs: number): void; nextDueMs(nowMs: number): number | null };

export type Maintenance = ReturnType<typeof createMaintenance>;

export function createMaintenance(
  state: GateState,
  commits: GroupCommit,
  relay: Relay,
  works: readonly BackgroundWork[],
  deps: {
    self: AgentDid;
    config: Pick<Config, "skewWarnSeconds" | "skewMaxSeconds">;
    setAlarm: (atMs: number) => void;
    now: () => number;
    log: Log;
    /** Sends the numbers on, in the background. */
    flushNumbers: () => void;
  },
) {
  let alarmAtMs = Infinity;
  /** When what is past is forgotten next; after a waking, whenever the alarm comes. */
  let pruneDueAtMs = Infinity;
  /** The group at hand is the alarm's own: it must not call for the next one, or an idle gate never slept. */
  let isPruning = false;

  /** An agent whose clock drifts is told of before its requests are refused for it. */
  const reportDrift = (nowMs: number): void => {
    const crossing = state.drift.settle(nowMs);
    if (crossing === null) return;
    const { skewWarnSeconds: warnSeconds, skewMaxSeconds: maxSeconds } = deps.config;
    const details = { ...crossing, warnSeconds, maxSeconds };
    const subject = { subject: `agent:${deps.self}`, agentDid: deps.self };
    const nobody = { principal: null, origin: null, requestId: null };
    state.audit.record({ action: "agent.clock_drift", ...subject, result: "warned", details }, nobody, nowMs);
    relay.broadcast("agent.clock_drift", { agentDid: deps.self, ...details });
    deps.log.warn("agent.clock_drift", details);
    count("sallyport_agent_clock_drifts", { direction: crossing.smoothedMs < 0 ? "behind" : "ahead" });
    deps.flushNumbers();
  };

  /** When the next of them is due; null when nothing is pending. */
  const nextWorkMs = (nowMs: number): number | null => {
    const dues = works.map((work) => work.nextDueMs(nowMs)).filter((due) => due !== null);
    return dues.length === 0 ? null : Math.min(...dues);
  };

  /** Sets the alarm where it is later than what is due first. One that comes early looks again. */
  const arm = (nowMs: number): void => {
    const sweepMs = state.queue.nextDueMs(state.sockets.size() > 0, nowMs);
    const workMs = nextWorkMs(nowMs);
    const dueMs = Math.min(
      state.outbox.isHolding() || !state.audit.isEmpty() || workMs !== null ? nowMs + SAFETY_ALARM_MS : Infinity,
      sweepMs ?? Infinity,
      relay.nextDueMs() ?? Infinity,
      pruneDueAtMs,
    );
    if (dueMs >= alarmAtMs) return;
    alarmAtMs = Math.max(dueMs, nowMs + 1);
    deps.setAlarm(alarmAtMs);
  };

  return {
    /** The last part of every group: pushes what can be pushed, starts what is due, and makes sure to be woken. */
    beforeCommit(effects: number): void {
      const nowMs = deps.now();
      relay.push(nowMs);
      state.rate.save();
      reportDrift(nowMs);
      for (const work of works) work.start(nowMs);
      if (effects > 0 && !isPruning) pruneDueAtMs = Math.min(pruneDueAtMs, nowMs + HOUSEKEEPING_AFTER_MS);
      isPruning = false;
      const workMs = nextWorkMs(nowMs);
      if (workMs !== null) commits.wake(Math.max(1, workMs - nowMs));
      arm(nowMs);
    },

    /** Something was written outside a group: one follows, and the alarm in the same commit, should the process die before it. */
    wake(): void {
      commits.wake();
      arm(deps.now());
    },

    /** What the platform says of the alarm at a waking. */
    alarmIsSetFor(atMs: number | null): void {
      alarmAtMs = atMs ?? Infinity;
    },

    async alarm(): Promise<void> {
      alarmAtMs = Infinity;
      await commits.commit(() => {
        const nowMs = deps.now();
        relay.sweep(nowMs);
        state.queue.expire((socketId) => state.sockets.byId(socketId) !== null, nowMs);
        if (pruneDueAtMs === Infinity || pruneDueAtMs <= nowMs) {
          state.prune(nowMs);
          isPruning = true;
          pruneDueAtMs = Math.max(state.nextPruneMs() ?? Infinity, nowMs + 1_000);
        }
      });
    },
  };
}
