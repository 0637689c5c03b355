/**
 * How an authority is ended: the guarantee of contract §5. When the answer reaches the caller, nothing under the old authority
 * is accepted, committed or handed out any more, and a restart does not undo it. Each end takes the same steps:
 *
 * 1. in one turn: the caller's own authority is looked at, and the end is written, row and epoch, with the audit's entry;
 * 2. the fencing token in D1 is raised at the primary, so that no batch begun before commits its effect;
 * 3. the calls in flight under what has ended are waited for;
 * 4. all of that within 5 s, or the answer is `DRAIN_TIMEOUT`, never a success;
 * 5. the sockets are closed after the answer, which may have to go over one of them.
 */
import type { AgentAuthority } from "../../authority/agent.ts";
import type { EndAgent, EndAuthority, Fenced } from "../../authority/authority.ts";
import type { Devices } from "../../authority/device/devices.ts";
import type { ApiKeys } from "../../authority/ended-api-keys.ts";
import { agentAuthority, deviceAuthority, issuedAuthority, sharedAuthority } from "../../authority/names.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { SharedSecret } from "../../authority/shared-secret.ts";
import { runBatch } from "../../database/batch.ts";
import { type FencingToken, raiseStatements } from "../../database/fencing.ts";
import type { Statement } from "../../database/statement.ts";
import { DeadlineExceeded, withDeadline } from "../../resilience/deadline.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError, proxyErrorFrom } from "../../wire/problem.ts";
import type { Queue } from "../queue/queue.ts";
import type { Relay } from "../relay/relay.ts";
import type { Sockets } from "../relay/sockets.ts";
import { type Calls, DRAIN_TIMEOUT_MS } from "./in-flight.ts";

/** The call that ends an authority. */
export type EndingCall = {
  /** @throws ProxyError where the call's own authority has ended */
  assertCurrent: () => void;
  /** Records that sockets will have to be closed after this call's answer. */
  closesSockets: () => void;
};

export type Revocation = {
  /**
   * Ends one authority, and what `apply` ends with it.
   *
   * @returns what `apply` returned, and how many sockets and calls the end found
   * @throws ProxyError DRAIN_TIMEOUT where the guarantee could not be reached in 5 s; the end itself stays
   */
  end<T>(call: EndingCall, end: EndAuthority<T>): Promise<{ applied: T; fenced: Fenced }>;
  /**
   * Completes an end that is written already: steps 2 to 4.
   *
   * @param raise the fencing tokens in D1, each to where it has to stand
   * @throws ProxyError DRAIN_TIMEOUT as above
   */
  complete(raise: readonly FencingToken[]): Promise<void>;
  /**
   * Ends everything of this agent, or everything issued before `keepJti`.
   *
   * @throws ProxyError DRAIN_TIMEOUT as above, or what `commit` throws; the agent stays ended where its outcome is unknown
   */
  endAgent(call: EndingCall, end: EndAgent): Promise<Fenced>;
};

export type RevocationDeps = {
  self: AgentDid;
  env: Pick<Env, "DB">;
  authority: AgentAuthority;
  devices: Devices;
  shared: SharedSecret;
  apiKeys: ApiKeys;
  queue: Pick<Queue, "endAll">;
  calls: Calls;
  sockets: Pick<Sockets, "all">;
  relay: Pick<Relay, "broadcast">;
  endReason: (ref: AuthorityRef) => string | null;
  /** Makes sure that what has just been written is committed and acted on, also when the process dies at once. */
  wake: () => void;
  now: () => number;
};

/** @returns the endings of one gate. */
export function createRevocation(deps: RevocationDeps): Revocation {
  const { self, env, authority, devices, shared, apiKeys, queue, calls, sockets, endReason, wake, now } = deps;

  /** Sockets and calls whose authority is over and which are there still. */
  const ended = (): Fenced => ({
    sockets: sockets.all().filter((session) => endReason(session.authority) !== null).length,
    inFlight: calls.endedCount(),
  });

  /** Step 1: runs what writes the end, in this turn. @returns its result, and what it has ended */
  const inOneTurn = <T>(call: EndingCall, write: () => T): { applied: T; fenced: Fenced } => {
    const before = ended();
    call.closesSockets();
    const applied = write();
    const after = ended();
    const fenced = { sockets: after.sockets - before.sockets, inFlight: after.inFlight - before.inFlight };
    wake();
    return { applied, fenced };
  };

  /** Step 3: waits for the calls in flight under what has ended. */
  const drain = async (): Promise<void> => {
    if (await calls.drain()) return;
    throw notReached(`${calls.endedCount()} calls in flight did not end`);
  };

  /** Everything that was issued besides the agent's own credential, and its tokens by their names. */
  const endRest = (tokens: { jti: string; expMs: number }[], reason: string): void => {
    authority.endTokens(tokens, reason);
    apiKeys.endAll();
    for (const device of devices.active()) devices.end(device, "revoked", now());
    devices.requests.dropAll();
    shared.replace(null, []);
  };

  /** The fencing tokens of the agent and of all that was issued by it, each to where `endRest` will have put it. */
  const raiseEverything = (): Statement<D1Result>[] =>
    raiseStatements([
      { authority: agentAuthority(self), epoch: authority.epoch() },
      ...devices
        .active()
        .map(({ deviceId, epoch }) => ({ authority: deviceAuthority(self, deviceId), epoch: epoch + 1 })),
      { authority: sharedAuthority(self), epoch: shared.generation() + 1 },
      { authority: issuedAuthority(self), epoch: apiKeys.generation() + 1 },
    ]);

  return {
    async end(call, { apply, raise, commitWith }) {
      call.assertCurrent();
      const { applied, fenced } = inOneTurn(call, apply);
      await withinDrainTime(() =>
        Promise.all([raiseAtPrimary(env.DB, raise(applied), commitWith?.(applied) ?? []), drain()]),
      );
      return { applied, fenced };
    },

    async complete(raise) {
      await withinDrainTime(() => Promise.all([raiseAtPrimary(env.DB, raise, []), drain()]));
    },

    async endAgent(call, { reason, keepJti, commit }) {
      const isRekey = keepJti !== undefined;
      // While there are sockets left that take it; what is sent in this turn leaves with what is written in it.
      if (!isRekey) deps.relay.broadcast("agent.revoked", { agentDid: self });
      // From here on nothing of this agent is accepted, and every socket and call finds itself ended.
      const { applied: ending, fenced } = inOneTurn(call, () => authority.endAll(reason));
      const raise = raiseEverything();
      try {
        await withinDrainTime(async () => {
          const tokens = await commit(raise);
          // A re-key that was given up has been repeated perhaps, and what stands now is the repetition's.
          if (isRekey && !ending.isInProgress()) return;
          endRest(
            tokens.filter(({ jti }) => jti !== keepJti),
            reason,
          );
          if (!isRekey) {
            ending.commit();
            queue.endAll("recipient revoked", now());
          }
          await drain();
          if (isRekey) ending.resume();
        });
      } catch (error) {
        if (isRekey && proxyErrorFrom(error).status < 500) ending.abort();
        else ending.leaveUnknown();
        throw error;
      } finally {
        wake();
      }
      return fenced;
    },
  };
}

function notReached(reason: string, cause?: unknown): ProxyError {
  return new ProxyError("DRAIN_TIMEOUT", { reason, retryAfterMs: 1_000, ...(cause === undefined ? {} : { cause }) });
}

/** Step 2: raises fencing tokens where effects are committed; a primary that does not take them is no success. */
async function raiseAtPrimary(
  db: D1Database,
  tokens: readonly FencingToken[],
  others: readonly Statement<D1Result>[],
): Promise<void> {
  if (tokens.length === 0 && others.length === 0) return;
  try {
    await runBatch(db.withSession("first-primary"), [...raiseStatements(tokens), ...others]);
  } catch (cause) {
    throw notReached("the fencing token could not be raised", cause);
  }
}

/** Step 4: one time for the whole of an end. What comes later continues by itself, but no caller is answered that it is over. */
async function withinDrainTime<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await withDeadline(DRAIN_TIMEOUT_MS, work);
  } catch (cause) {
    if (!(cause instanceof DeadlineExceeded)) throw cause;
    throw notReached("the end did not reach D1 and every call in time", cause);
  }
}
