/** Calls that run in this gate, each under a handle of its caller's authority. Contract §5, architecture: calls in flight. */
import type { AgentAuthority } from "../../authority/agent.ts";
import type { ApiKeys } from "../../authority/ended-api-keys.ts";
import type { Authority } from "../../authority/authority.ts";
import type { OperatorPrincipal } from "../../authority/operator.ts";
import type { Principal } from "../../authority/principal.ts";
import { type AuthorityRef, fencingTokens } from "../../authority/reference.ts";
import { registerExternalAgent } from "../../authz/external-agents.ts";
import type { CallContext } from "../../call/context.ts";
import type { RemoteGate } from "../../call/remote-gate.ts";
import type { Reply } from "../../call/reply.ts";
import type { Config } from "../../config.ts";
import { readNumber, writeMeta } from "../../database/meta.ts";
import type { Bookmarks } from "../../database/session.ts";
import { underOperator } from "../../operators/lease.ts";
import { type Dispatcher, refusal } from "../../rpc/dispatcher.ts";
import type { Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { Relay } from "../relay/relay.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Calls } from "./in-flight.ts";
import type { Operations } from "./operations.ts";

/** Which request a call is part of, and from where it came. */
export type CallOrigin = { requestId: string; origin: string | null; bookmarks: Bookmarks | null };

export type AskedCall = { surface: "rpc" | "http"; method: string; params: unknown };

/** Any time at all is a later turn than the one in which a call's answer is sent. */
const AFTER_THE_ANSWER_MS = 1;

export type RunnerDeps = {
  self: AgentDid;
  env: Env;
  config: Config;
  sql: SqlStorage;
  authority: Pick<AgentAuthority, "holds" | "epoch">;
  apiKeys: Pick<ApiKeys, "generation">;
  calls: Calls;
  operations: Operations;
  relay: Pick<Relay, "sweep">;
  commits: GroupCommit;
  dispatcher: () => Dispatcher;
  gateStub: (did: AgentDid) => RemoteGate;
  /** Why something that began under an authority may not continue at this moment, or null. */
  endReason: (ref: AuthorityRef) => string | null;
  background: (work: Promise<unknown>) => void;
  now: () => number;
  log: Log;
};

export type Runner = {
  /**
   * Runs one call, which is in flight until it has settled.
   *
   * @param caller the caller's authority, which the call may end itself; or the operator, who is above the agent's
   */
  run(caller: AuthorityRef | OperatorPrincipal, request: CallOrigin, call: AskedCall): Promise<Reply>;
};

/** @returns the runner of one gate. */
export function createRunner(deps: RunnerDeps): Runner {
  const { self, env, config, sql, authority, apiKeys, calls, operations, relay, commits, endReason, now, log } = deps;

  const authorityOf = (ref: AuthorityRef): Authority => ({
    assertCurrent() {
      if (endReason(ref) !== null)
        throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "the authority ended while the call ran" });
    },
    fence() {
      // The agent's epoch rises for each of its tokens that ends alone; what holds at this moment holds under today's.
      if (ref.kind === "agent" && authority.holds(ref)) ref.epoch = authority.epoch();
      return fencingTokens(self, ref, apiKeys.generation());
    },
    revokedItself(epoch) {
      ref.epoch = epoch;
      if (ref.kind === "device" || ref.kind === "apiKey") ref.mayStillReply = true;
    },
  });

  const contextOf = (
    caller: { ref: AuthorityRef | null; principal: Principal; authority: Authority },
    request: CallOrigin,
    closesSockets: () => void,
  ): CallContext => {
    const { ref, principal } = caller;
    return {
      env,
      config,
      db: env.DB,
      principal,
      authority: caller.authority,
      requestId: request.requestId,
      origin: request.origin,
      now,
      log,
      agentDid: self,
      bookmarks: request.bookmarks,
      gates: { of: deps.gateStub },
      gate: operations({
        ref,
        by: { principal, origin: request.origin, requestId: request.requestId },
        assertCurrent: caller.authority.assertCurrent,
        closesSockets,
      }),
    };
  };

  /** The embedded registry has put its agents into the graph itself. */
  let isInGraph = config.registryUrl === "embedded" || readNumber(sql, "in_graph") === 1;
  const introduce = async (context: CallContext): Promise<void> => {
    if (isInGraph || context.principal.kind !== "agent" || !(await registerExternalAgent(context))) return;
    isInGraph = true;
    writeMeta(sql, "in_graph", 1);
  };

  return {
    async run(caller, request, { surface, method, params }) {
      let hasEnded = false;
      const closesSockets = (): void => {
        hasEnded = true;
      };
      const ref = caller.kind === "operator" ? null : caller;
      const dispatch = async (principal: Principal, held: Authority): Promise<Reply> => {
        const context = contextOf({ ref, principal, authority: held }, request, closesSockets);
        await introduce(context);
        return deps.dispatcher().dispatch(context, surface, method, params);
      };
      try {
        return await calls.run(
          () => ref !== null && endReason(ref) !== null,
          () =>
            caller.kind === "operator"
              ? underOperator(caller, { db: env.DB, now }, (held) => dispatch(caller, held)).catch(refusalOf)
              : dispatch(caller.principal, authorityOf(caller)),
        );
      } finally {
        // Sockets whose authority this call has ended are closed after its answer, which may have to go over one of them.
        if (hasEnded) deps.background(commits.commit(() => relay.sweep(now()), AFTER_THE_ANSWER_MS));
      }
    },
  };
}

/** An operator's key that has ended, or of which nobody could say that it has not. */
function refusalOf(thrown: unknown): Reply {
  if (thrown instanceof ProxyError) return refusal(thrown);
  throw thrown;
}
