/** The one hop: what the chain passed goes to the agent's gate, and the gate's answer closes the decision. */
import type { Context } from "hono";
import type { Passed, PassedAgent } from "../auth/chain.ts";
import { type Refusal, refusal, refusalError } from "../auth/reasons.ts";
import type { AgentAdmission } from "../gate/admission/agent.ts";
import type { Gate, GateCaller } from "../gate/gate.ts";
import { errorFields } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import type { ProxyError } from "../wire/problem.ts";
import { addressOf, chainScope, type HttpEnv } from "./middleware/request-context.ts";

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
  if (passed.kind === "operator" || passed.credential.kind === "apiKey") return null;
  const { credential } = passed;
  return { agentDid: credential.agentDid, caller: { kind: "credential", credential, address: addressOf(c.req.raw) } };
}

export function gateOf(c: Context<HttpEnv>, agentDid: AgentDid): DurableObjectStub<Gate> {
  return c.env.GATE.getByName(agentDid);
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
