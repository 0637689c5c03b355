/** The one hop: what the chain passed goes to the agent's gate, and the gate's answer closes the decision. */
import type { Context } from "hono";
import type { Passed, PassedAgent } from "../auth/passed.ts";
import { type Refusal, refusal, refusalError } from "../auth/reasons.ts";
import type { WrittenReply } from "../call/reply.ts";
import type { Gate } from "../gate/gate.ts";
import type { GateCall, GateCaller } from "../gate/protocol/calls.ts";
import type { AgentAdmission } from "../gate/protocol/submission.ts";
import { errorFields } from "../telemetry/log.ts";
import { inSpan } from "../telemetry/span.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { chainScope, type HttpEnv } from "./middleware/request-context.ts";

/** The plain form in which a passed request crosses to its gate. */
export function admissionOf({ principal, proof, access }: PassedAgent): AgentAdmission {
  return {
    principal,
    nonce: proof.nonce,
    timestampSeconds: proof.timestampMs / 1_000,
    ...(access === null ? {} : { access: { keyHash: access.keyHash, validatedAtMs: access.validatedAtMs } }),
  };
}

/** Whom a passed request is to its agent's gate; null for the operator and for API keys, which name their agent elsewhere. */
export function gateCallerOf(
  c: Context<HttpEnv>,
  passed: Passed,
): { agentDid: AgentDid; caller: Exclude<GateCaller, { kind: "operator" }> } | null {
  if (passed.kind === "agent") {
    return { agentDid: passed.principal.agentDid, caller: { kind: "agent", admission: admissionOf(passed) } };
  }
  if (passed.kind === "operator" || passed.credential.kind === "apiKey" || passed.credential.kind === "operatorKey")
    return null;
  const { credential } = passed;
  return { agentDid: credential.agentDid, caller: { kind: "credential", credential, address: c.get("address") } };
}

/** @returns the stub of an agent's gate; made anew for each request, since one of another request throws */
export function gateStub(c: Context<HttpEnv>, agentDid: AgentDid): DurableObjectStub<Gate> {
  return c.env.GATE.getByName(agentDid);
}

/**
 * Refuses what is asked of the gate of an agent that does not exist, as its gate would: no object is woken for it.
 *
 * @param counting whether a wrong credential of this kind is counted as a guess
 * @returns null where a gate is to be asked
 */
export async function refuseUnknownAgent(
  c: Context<HttpEnv>,
  agentDid: AgentDid,
  counting: "guesses" | "nothing",
): Promise<Refusal | null> {
  const { knownAgents, unknownAgentGuesses } = c.get("runtime");
  if (await knownAgents.mayExist(agentDid, { db: c.env.DB, log: c.get("log") })) return null;
  const guess = `${agentDid} ${c.get("address")}`;
  const lockedMs = counting === "guesses" ? unknownAgentGuesses.failed(guess, Date.now()) : 0;
  return lockedMs > 0
    ? { ...refusal("gate-address-locked"), retryAfterMs: lockedMs }
    : refusal("gate-credential-refused");
}

/** The same for a caller that the chain has passed without verifying it, which is left to the gate. */
export async function refuseUnknownCaller(
  c: Context<HttpEnv>,
  agentDid: AgentDid,
  caller: GateCaller,
): Promise<Refusal | null> {
  if (caller.kind !== "credential") return null;
  return refuseUnknownAgent(c, agentDid, caller.credential.kind === "shared" ? "guesses" : "nothing");
}

/** A gate that did not answer: nobody knows whether it decided, so the request is refused as one to be made again. */
export function gateFailed(c: Context<HttpEnv>, error: unknown): Refusal {
  c.get("log").error("gate.failed", errorFields(error));
  return { ...refusal("gate-unavailable"), retryAfterMs: 1_000 };
}

/** Closes a decision with the gate's refusal. */
export function refusedByGate(c: Context<HttpEnv>, passed: Passed, why: Refusal): ProxyError {
  return c.get("runtime").chain.conclude(passed, why, chainScope(c)) ?? refusalError(why);
}

/** Closes a decision that the gate agreed to. */
export function acceptedByGate(c: Context<HttpEnv>, passed: Passed): void {
  c.get("runtime").chain.conclude(passed, null, chainScope(c));
}

/** @returns the agent that an operator names. @throws ProxyError PROXY_BAD_REQUEST naming agentDid */
export function namedAgent(value: unknown): AgentDid {
  const agentDid = typeof value === "string" ? parseAgentDid(value) : null;
  if (agentDid === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: is no agent DID" });
  return agentDid;
}

/** Runs calls in an agent's gate and closes the decision with its answer. @throws ProxyError when the gate refuses the caller */
export async function callGate(
  c: Context<HttpEnv>,
  passed: Passed,
  agentDid: AgentDid,
  what: Pick<GateCall, "caller" | "surface" | "calls" | "rpcBody" | "waitMs">,
): Promise<{ replies: WrittenReply[]; rpcText: string | null }> {
  const unknown = await refuseUnknownCaller(c, agentDid, what.caller);
  if (unknown !== null) throw refusedByGate(c, passed, unknown);
  const call: GateCall = {
    ...what,
    requestId: c.get("requestId"),
    origin: c.get("address"),
    bookmark: c.get("bookmarks")?.given ?? null,
  };
  // An RPC hands back its answer in a wrapper for remote use; here the answer is plain data.
  const answer = (await inSpan("gate.call", () => gateStub(c, agentDid).call(call)).catch((error: unknown) => ({
    ok: false,
    refusal: gateFailed(c, error),
  }))) as
    | { ok: true; replies: WrittenReply[]; rpcText: string | null; bookmark: string | null }
    | { ok: false; refusal: ReturnType<typeof gateFailed> };
  if (!answer.ok) throw refusedByGate(c, passed, answer.refusal);
  acceptedByGate(c, passed);
  const bookmarks = c.get("bookmarks");
  if (bookmarks !== undefined) bookmarks.latest = answer.bookmark;
  return answer;
}
