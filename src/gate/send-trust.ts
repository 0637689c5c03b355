/** By which trust an agent may send over its socket: the chain's trust stage, asked from its gate. */
import { type Refusal, refusalError } from "../auth/reasons.ts";
import type { CallScope } from "../resilience/cached-call.ts";
import { startDeadline } from "../resilience/deadline.ts";
import type { Runtime } from "../runtime.ts";
import type { Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import type { Result } from "../wire/result.ts";
import type { SendTrust } from "./relay/enqueue.ts";

/** @returns what looks trust up, within the deadline of a whole request */
export function createSendTrust(deps: {
  self: AgentDid;
  ctx: Pick<DurableObjectState, "waitUntil">;
  runtime: Pick<Runtime, "config" | "trust">;
  log: Log;
}): SendTrust {
  const { self, ctx, runtime, log } = deps;
  const { trust } = runtime;

  const inTime = async <T>(judge: (scope: CallScope) => Promise<Result<T, Refusal>>): Promise<T> => {
    const deadline = startDeadline(runtime.config.authDeadlineMs, Date.now);
    try {
      const background = (work: Promise<unknown>): void => ctx.waitUntil(work);
      const judged = await judge({ now: Date.now, log, background, signal: deadline.signal });
      if (!judged.ok) throw refusalError(judged.error);
      return judged.value;
    } finally {
      deadline.end();
    }
  };

  return {
    async pair(to, how) {
      return (await inTime((scope) => trust.judge(self, to, scope, how))).epoch;
    },
    group: (groupId, recipient, how) =>
      inTime((scope) => trust.groups.judge({ sender: self, groupId, recipient }, scope, how)),
  };
}
