/** What a verified request brings to its gate, and how the gate decides on it: flags, window, nonce, rate, in this order. */
import { AGENT_HOLDER } from "../../authority/holder.ts";
import type { AgentAuthority } from "../../authority/agent.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { AgentAdmission } from "../protocol/submission.ts";
import type { AccessValidations } from "./access-validations.ts";
import type { Drift } from "./clock-drift.ts";
import type { Nonces } from "./nonces.ts";
import type { Rate } from "./rate-limit.ts";

/** The stores by which a request of the agent is judged. */
export type AgentAdmissionStores = {
  accessValidations: AccessValidations;
  authority: AgentAuthority;
  nonces: Nonces;
  rate: Rate;
  drift: Drift;
  accessMaxStaleMs: number;
};

/**
 * Admits one request of the agent and remembers its nonce. Part of the caller's transaction, so a request that is refused
 * burns no nonce.
 *
 * @param endsAuthority whether the request is a call that ends an authority, for which the rate has a reserve
 * @param deferredRefusal what refuses this request if nothing here does: an agent that is no more hears that first
 * @throws GateRefusal
 */
export function admitAgent(
  stores: AgentAdmissionStores,
  admission: AgentAdmission,
  nowMs: number,
  deferredRefusal: GateRefusal | null = null,
  endsAuthority = false,
): void {
  const { principal, nonce, timestampSeconds, access } = admission;
  if (!stores.authority.accepts(principal.jti) || principal.expMs <= nowMs) throw new GateRefusal("gate-agent-revoked");
  if (access?.validatedAtMs === null) {
    const known = stores.accessValidations.validatedAtMs(access.keyHash);
    if (known === null || known + stores.accessMaxStaleMs <= nowMs) {
      throw new GateRefusal("gate-access-unknown", 1_000);
    }
  }
  const counted = { holder: AGENT_HOLDER, endsAuthority };
  const waitMs = stores.rate.waitMs(counted, nowMs);
  // A request that will be refused is only judged: nothing is written before the last refusal.
  const judge = waitMs > 0 || deferredRefusal !== null ? stores.nonces.judge : stores.nonces.use;
  const verdict = judge(principal.keyX, nonce, timestampSeconds, nowMs);
  if (verdict === "pruned") throw new GateRefusal("gate-nonce-too-old");
  if (verdict === "outside-window") throw new GateRefusal("gate-timestamp-skewed");
  if (verdict === "seen") throw new GateRefusal("gate-nonce-replayed");
  if (waitMs > 0) throw new GateRefusal("gate-rate-exceeded", waitMs);
  if (deferredRefusal !== null) throw deferredRefusal;
  stores.rate.count(counted, nowMs);
  stores.drift.observe(timestampSeconds * 1_000 - nowMs, nowMs);
  stores.accessValidations.recordOwner(principal.ownerDid);
  if (principal.name !== undefined) stores.accessValidations.recordName(principal.name);
  if (access !== undefined && access.validatedAtMs !== null)
    stores.accessValidations.validated(access.keyHash, access.validatedAtMs);
}

/** @returns the authority that an admitted request of the agent runs under */
export function agentRef(authority: Pick<AgentAuthority, "epoch">, { principal }: AgentAdmission): AuthorityRef {
  return { kind: "agent", epoch: authority.epoch(), jti: principal.jti, expMs: principal.expMs, principal };
}
