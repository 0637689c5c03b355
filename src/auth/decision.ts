/**
 * What the chain decided about one request, and why: written by the stages as the request passes them, logged once when
 * it is decided, and there for counters and spans to read.
 */
import type { CacheState } from "../resilience/stale-cache.ts";
import type { Fields, Log } from "../telemetry/log.ts";
import type { LogLimit } from "../telemetry/log-limit.ts";
import { PROBLEMS } from "../wire/problem.ts";
import { type Refusal, REASONS, type Stage } from "./reasons.ts";
import type { CredentialKind } from "./credential.ts";

/** The caches that a request passes; `token` is the memory of verified tokens. */
export type CacheName = "token" | "keys" | "crl" | "trust" | "access";

export type Decision = {
  readonly route: string;
  readonly startedAtMs: number;
  /** Kind of credential, once its scheme is known. */
  credential: CredentialKind | null;
  /** As the credential says, verified or not: a refusal may name an agent that never made the request. */
  agentDid: string | null;
  recipientDid: string | null;
  /** Of a send in a group. */
  groupId?: string;
  /** By how much the signer's clock is ahead, in milliseconds. */
  skewMs: number | null;
  readonly caches: Partial<Record<CacheName, CacheState | "unavailable">>;
  /** Wall time a stage waited, in milliseconds. */
  readonly durationsMs: Partial<Record<Stage, number>>;
  /** When the chain was through and only the gate was left to ask; null before. */
  passedAtMs: number | null;
  /** Null until decided. */
  outcome: AuthOutcome | null;
};

export type AuthOutcome =
  | { readonly accepted: true; readonly durationMs: number }
  | { readonly accepted: false; readonly durationMs: number; readonly stage: Stage; readonly refusal: Refusal };

/** @returns the record of a decision that has just begun. @param nowMs milliseconds since 1970 */
export function openDecision(route: string, nowMs: number): Decision {
  return {
    route,
    startedAtMs: nowMs,
    credential: null,
    agentDid: null,
    recipientDid: null,
    skewMs: null,
    caches: {},
    durationsMs: {},
    passedAtMs: null,
    outcome: null,
  };
}

/**
 * Closes a decision and logs it; a second close changes nothing, so that no request is logged twice.
 *
 * @param refused null when the request is accepted
 */
export function closeDecision(
  decision: Decision,
  refused: Refusal | null,
  at: { nowMs: number; log: Log; skewWarnSeconds: number; limit: LogLimit },
): void {
  if (decision.outcome !== null) return;
  const durationMs = at.nowMs - decision.startedAtMs;
  if (decision.passedAtMs !== null) decision.durationsMs.gate = at.nowMs - decision.passedAtMs;
  decision.outcome =
    refused === null
      ? { accepted: true, durationMs }
      : { accepted: false, durationMs, stage: REASONS[refused.reason].stage, refusal: refused };
  logDecision(decision, refused, at);
  const { skewMs, agentDid } = decision;
  if (refused === null && skewMs !== null && Math.abs(skewMs) > at.skewWarnSeconds * 1_000) {
    at.log.warn("auth.clock_skew", { agentDid, skewMs, warnSeconds: at.skewWarnSeconds });
  }
}

/**
 * The level says whose doing it is: error for what the proxy or what it depends on could not do, warn for what the caller did. A
 * caller that has used up its rate or its share is logged once a minute, with a count of the refusals that were left out.
 */
function logDecision(
  decision: Decision,
  refused: Refusal | null,
  { log, limit, nowMs }: { nowMs: number; log: Log; limit: LogLimit },
): void {
  const fields = decisionFields(decision);
  if (refused === null) {
    log.info("auth.decision", fields);
    return;
  }
  const { status } = PROBLEMS[REASONS[refused.reason].code];
  if (status === 429 || status === 507) {
    const leftOut = limit.due(`${refused.reason} ${decision.agentDid ?? ""}`, nowMs);
    if (leftOut !== null) log.warn("auth.decision", { ...fields, leftOut });
  } else if (status >= 500 || refused.reason === "trust-unavailable") log.error("auth.decision", fields);
  else log.warn("auth.decision", fields);
}

/** The one log line of a decision: flat, and without a secret, a token, a body or a nonce. */
export function decisionFields(decision: Decision): Fields {
  const { outcome, caches, durationsMs } = decision;
  const fields: Fields = {
    route: decision.route,
    credential: decision.credential,
    agentDid: decision.agentDid,
    recipientDid: decision.recipientDid,
    skewMs: decision.skewMs,
  };
  if (decision.groupId !== undefined) fields["groupId"] = decision.groupId;
  for (const [name, state] of Object.entries(caches)) fields[`${name}Cache`] = state;
  for (const [stage, durationMs] of Object.entries(durationsMs)) if (durationMs > 0) fields[`${stage}Ms`] = durationMs;
  if (outcome === null) return fields;
  fields["durationMs"] = outcome.durationMs;
  fields["outcome"] = outcome.accepted ? "accepted" : "refused";
  if (!outcome.accepted) {
    const { reason, diagnostics } = outcome.refusal;
    Object.assign(fields, { stage: outcome.stage, reason, code: REASONS[reason].code }, diagnostics);
  }
  return fields;
}
