/** By which trust an agent may send over its socket: the chain's trust stage, asked from its gate. */
import { refusalError } from "../auth/reasons.ts";
import { startDeadline } from "../resilience/deadline.ts";
import type { Runtime } from "../runtime.ts";
import type { Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import type { TrustEpoch } from "./relay/enqueue.ts";

/** @returns what looks the trust epoch up, within the deadline of a whole request */
export function createTrustEpoch(deps: {
  self: AgentDid;
  ctx: Pick<DurableObjectState, "waitUntil">;
  runtime: Pick<Runtime, "config" | "trust">;
  log: Log;
}): TrustEpoch {
  const { self, ctx, runtime, log } = deps;
  return async (to, how = { fresh: false }) => {
    const deadline = startDeadline(runtime.config.authDeadlineMs, Date.now);
    try {
      const background = (work: Promise<unknown>): void => ctx.waitUntil(work);
      const scope = { now: Date.now, log, background, signal: deadline.signal };
      const judged = await runtime.trust.judge(self, to, scope, how);
      if (!judged.ok) throw refusalError(judged.error);
      return judged.value.epoch;
    } finally {
      deadline.end();
    }
  };
}
