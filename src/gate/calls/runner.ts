/** Calls that run in this gate, each under a handle of its caller's authority. Contract §5, architecture: calls in flight. */
import type { Principal } from "../../authority/principal.ts";
import { type AuthorityRef, fencingToken } from "../../authority/reference.ts";
import { registerExternalAgent } from "../../authz/external-agents.ts";
import type { CallContext } from "../../call/context.ts";
import type { LocalMessage } from "../../call/gate.ts";
import type { Reply } from "../../call/reply.ts";
import type { Config } from "../../config.ts";
import { fenceStatement } from "../../database/fencing.ts";
import { readNumber, writeMeta } from "../../database/meta.ts";
import type { Bookmarks } from "../../database/session.ts";
import type { Dispatcher } from "../../rpc/dispatcher.ts";
import type { Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { RemoteGate } from "../../call/remote-gate.ts";
import type { Relay } from "../relay/connection.ts";
import type { GateState } from "../state.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import { createLocal } from "./operations.ts";

/** Which request a call is part of, and from where it came. */
export type CallOrigin = { requestId: string; origin: string | null; bookmarks: Bookmarks | null };

export type AskedCall = { surface: "rpc" | "http"; method: string; params: unknown };

/** Any time at all is a later turn than the one in which a call's answer is sent. */
const AFTER_THE_ANSWER_MS = 1;

export type RunnerDeps = {
  self: AgentDid;
  env: Env;
  config: Config;
  dispatcher: () => Dispatcher;
  now: () => number;
  log: Log;
  gateStub: (did: AgentDid) => RemoteGate;
  putLocal: (message: LocalMessage) => { deliveryId: string };
  fencePeer: (peer: AgentDid, trustEpoch: number) => void;
  /** Makes sure that what has just been written is looked after, also when the process dies at once. */
  wake: () => void;
  background: (work: Promise<unknown>) => void;
};

export type Runner = {
  /** @param ref the caller's authority, which the call may end itself; null for the operator, who is above it. */
  run(ref: AuthorityRef | null, request: CallOrigin, call: AskedCall): Promise<Reply>;
};

export function createRunner(state: GateState, commits: GroupCommit, relay: Relay, deps: RunnerDeps): Runner {
  const { self, env, config, now, log } = deps;

  const contextOf = (ref: AuthorityRef | null, request: CallOrigin, ends: () => void): CallContext => {
    const principal: Principal = ref === null ? { kind: "operator" } : ref.principal;
    const assertCurrent = (): void => {
      if (ref !== null && state.endReason(ref) !== null) {
        throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "the authority ended while the call ran" });
      }
    };
    return {
      env,
      config,
      db: env.DB,
      principal,
      authority: {
        assertCurrent,
        fence(db) {
          if (ref === null) return [];
          // The agent's epoch rises for each of its tokens that ends alone; what holds at this moment holds under today's.
          if (ref.kind === "agent" && state.authority.holds(ref)) ref.epoch = state.authority.epoch();
          return [fenceStatement(db, fencingToken(self, ref))];
        },
        revokedItself(epoch) {
          if (ref === null) return;
          ref.epoch = epoch;
          if (ref.kind === "device" || ref.kind === "apiKey") ref.mayStillReply = true;
        },
      },
      requestId: request.requestId,
      origin: request.origin,
      now,
      log,
      agentDid: self,
      bookmarks: request.bookmarks,
      gates: { of: deps.gateStub },
      gate: createLocal(state, {
        self,
        ref,
        db: env.DB,
        now,
        assertCurrent,
        putLocal: deps.putLocal,
        fencePeer: deps.fencePeer,
        attemptsAt: (recipient, deliveryId) => deps.gateStub(recipient).attempts(deliveryId),
        by: { principal, origin: request.origin, requestId: request.requestId },
        broadcast: (event, payload) => relay.broadcast(event, payload),
        wake: deps.wake,
        ends,
      }),
    };
  };

  /** The embedded registry has put its agents into the graph itself. */
  let isInGraph = config.registryUrl === "embedded" || readNumber(state.sql, "in_graph") === 1;
  const introduce = async (context: CallContext): Promise<void> => {
    if (isInGraph || context.principal.kind !== "agent" || !(await registerExternalAgent(context))) return;
    isInGraph = true;
    writeMeta(state.sql, "in_graph", 1);
  };

  return {
    async run(ref, request, { surface, method, params }) {
      let hasEnded = false;
      const ends = (): void => {
        hasEnded = true;
      };
      try {
        return await state.calls.run(
          () => ref !== null && state.endReason(ref) !== null,
          async () => {
            const context = contextOf(ref, request, ends);
            await introduce(context);
            return deps.dispatcher().dispatch(context, surface, method, params);
          },
        );
      } finally {
        // Sockets whose authority this call has ended are closed after its answer, which may have to go over one of them.
        if (hasEnded) deps.background(commits.commit(() => relay.sweep(now()), AFTER_THE_ANSWER_MS));
      }
    },
  };
}
