/**
 * Every refusal of the chain: which stage makes it, and what the wire gets. The wire gets the code alone, the log the
 * reason; the table is exhaustive, so a reason without a code does not compile.
 */
import { type ProblemCode, ProxyError } from "../wire/problem.ts";
import type { Fields } from "../telemetry/log.ts";

/** The stages in walking order; `gate` decides last, in the one hop. */
export const STAGES = [
  "body",
  "token",
  "revocation",
  "proof",
  "replay",
  "trust",
  "access",
  "credential",
  "route",
  "gate",
] as const;
export type Stage = (typeof STAGES)[number];

type Meaning = { readonly stage: Stage; readonly code: ProblemCode };

const at = (stage: Stage, code: ProblemCode): Meaning => ({ stage, code });

/** Reason → stage and wire code (contract §3, the table of errors). */
export const REASONS = {
  // 1 token
  "authorization-missing": at("token", "PROXY_AUTH_MISSING_TOKEN"),
  "scheme-unknown": at("token", "PROXY_AUTH_INVALID_SCHEME"),
  "scheme-not-for-this-route": at("token", "PROXY_AUTH_INVALID_SCHEME"),
  "ait-too-long": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-malformed": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-header-invalid": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-claims-invalid": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-issuer-foreign": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-not-yet-valid": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-expired": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-proof-key-weak": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-key-unknown": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-key-revoked": at("token", "PROXY_AUTH_INVALID_AIT"),
  "ait-signature-invalid": at("token", "PROXY_AUTH_INVALID_AIT"),
  "keys-unavailable": at("token", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  // the body, bounded while it is read
  "body-too-large": at("body", "PROXY_BODY_TOO_LARGE"),
  "body-too-slow": at("body", "PROXY_BAD_REQUEST"),
  "body-broken-off": at("body", "PROXY_BAD_REQUEST"),
  // the address holds too much of what is read for callers who have proved nothing yet
  "body-no-room": at("body", "PROXY_RATE_LIMIT_EXCEEDED"),
  // 2 revocation
  "ait-revoked": at("revocation", "PROXY_AUTH_REVOKED"),
  "crl-unavailable": at("revocation", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  "crl-too-old": at("revocation", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  // 3 proof
  "timestamp-missing": at("proof", "PROXY_AUTH_INVALID_TIMESTAMP"),
  "timestamp-malformed": at("proof", "PROXY_AUTH_INVALID_TIMESTAMP"),
  "timestamp-skewed": at("proof", "PROXY_AUTH_TIMESTAMP_SKEW"),
  "nonce-missing": at("proof", "PROXY_AUTH_INVALID_NONCE"),
  "nonce-malformed": at("proof", "PROXY_AUTH_INVALID_NONCE"),
  "body-hash-missing": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  "body-hash-malformed": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  "body-hash-mismatch": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  "proof-missing": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  "proof-malformed": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  "proof-v1-refused": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  "signature-input-invalid": at("proof", "PROXY_AUTH_INVALID_SIGNATURE_INPUT"),
  "proof-ambiguous": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  "proof-invalid": at("proof", "PROXY_AUTH_INVALID_PROOF"),
  // 4 replay
  "nonce-seen-here": at("replay", "PROXY_AUTH_REPLAY"),
  // this key's requests were refused too often in the last minute for one more to be worth a look at a store
  "refused-too-often": at("replay", "PROXY_RATE_LIMIT_EXCEEDED"),
  // 5 trust
  "recipient-missing": at("trust", "PROXY_HOOK_RECIPIENT_REQUIRED"),
  "recipient-malformed": at("trust", "PROXY_HOOK_RECIPIENT_INVALID"),
  "recipient-is-sender": at("trust", "PROXY_HOOK_RECIPIENT_INVALID"),
  "peer-not-trusted": at("trust", "PROXY_AUTH_FORBIDDEN"),
  "group-malformed": at("trust", "PROXY_BAD_REQUEST"),
  // no such group, or one of the two is not in it: one and the same to whoever asks
  "group-not-trusted": at("trust", "PROXY_AUTH_FORBIDDEN"),
  "trust-unavailable": at("trust", "PROXY_TRUST_UNAVAILABLE"),
  "trust-overloaded": at("trust", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  // 6 access
  "access-missing": at("access", "PROXY_AGENT_ACCESS_REQUIRED"),
  "access-malformed": at("access", "PROXY_AGENT_ACCESS_INVALID"),
  "access-invalid": at("access", "PROXY_AGENT_ACCESS_INVALID"),
  "access-unavailable": at("access", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  // devices, shared secrets, API keys, the operator: one code, says no more
  "credential-malformed": at("credential", "PROXY_AUTH_INVALID_TOKEN"),
  "credential-agent-missing": at("credential", "PROXY_AUTH_INVALID_TOKEN"),
  "credential-agent-foreign": at("credential", "PROXY_AUTH_INVALID_TOKEN"),
  "bearer-not-for-this-route": at("credential", "PROXY_AUTH_INVALID_TOKEN"),
  "operator-token-wrong": at("credential", "PROXY_AUTH_INVALID_TOKEN"),
  "access-assertion-invalid": at("credential", "PROXY_AUTH_INVALID_TOKEN"),
  // a person whom Access vouches for, and to whom ACCESS_ROLES gives no role
  "access-role-none": at("credential", "PROXY_AUTH_FORBIDDEN"),
  // a browser sends the assertion by itself, also where a page of another site asks it to
  "access-cross-site": at("credential", "PROXY_AUTH_FORBIDDEN"),
  "access-keys-unavailable": at("credential", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  "credential-looked-up-too-often": at("credential", "PROXY_RATE_LIMIT_EXCEEDED"),
  "credential-unavailable": at("credential", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  // what the route itself finds wrong with a verified request; the diagnostics name the code that it answers with
  "sends-far-too-many": at("route", "PROXY_RATE_LIMIT_EXCEEDED"),
  "route-refused": at("route", "PROXY_BAD_REQUEST"),
  // what the gate decides in its hop
  "gate-nonce-replayed": at("gate", "PROXY_AUTH_REPLAY"),
  "gate-nonce-too-old": at("gate", "PROXY_AUTH_REPLAY"),
  "gate-timestamp-skewed": at("gate", "PROXY_AUTH_TIMESTAMP_SKEW"),
  "gate-agent-revoked": at("gate", "PROXY_AUTH_REVOKED"),
  "gate-access-unknown": at("gate", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
  "gate-credential-refused": at("gate", "PROXY_AUTH_INVALID_TOKEN"),
  "gate-address-locked": at("gate", "PROXY_RATE_LIMIT_EXCEEDED"),
  "gate-nothing-to-claim": at("gate", "PROXY_CONFLICT"),
  "gate-client-invalidated": at("gate", "PROXY_AUTH_CLIENT_INVALIDATED"),
  "gate-proof-invalid": at("gate", "PROXY_AUTH_INVALID_TOKEN"),
  "gate-peer-fenced": at("gate", "PROXY_AUTH_FORBIDDEN"),
  "gate-rate-exceeded": at("gate", "PROXY_RATE_LIMIT_EXCEEDED"),
  "gate-idempotency-conflict": at("gate", "PROXY_CONFLICT"),
  "gate-sockets-exhausted": at("gate", "PROXY_RATE_LIMIT_EXCEEDED"),
  "gate-outbox-full": at("gate", "PROXY_RELAY_QUEUE_FULL"),
  "gate-unavailable": at("gate", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"),
} as const satisfies Record<string, Meaning>;

export type Reason = keyof typeof REASONS;

/** A refusal: the reason, and diagnostics for the log alone. */
export type Refusal = {
  readonly reason: Reason;
  /** For the log: never a secret, a token, a body or a nonce. */
  readonly diagnostics?: Fields;
  /** What the caller reads in the place of the code's own words: about what it sent itself, and nothing else. */
  readonly detail?: string;
  /** When to come back, where the cause passes by itself. */
  readonly retryAfterMs?: number;
};

/** A refusal without more to say than its reason. */
export function refusal(reason: Reason, diagnostics?: Fields): Refusal {
  return diagnostics === undefined ? { reason } : { reason, diagnostics };
}

/** Where the table of codes would say too little about what the caller itself sent. */
const DETAILS: Partial<Record<Reason, string>> = {
  "recipient-is-sender": "An agent cannot send to itself.",
  "group-malformed": "X-Claw-Group-Id must be the id of a group, grp_ and a ULID.",
  "body-too-slow": "The body took too long to arrive.",
  "body-broken-off": "The body broke off.",
};

/** What the wire gets of a refusal: the code, and words only about what the caller itself sent. */
export function refusalError(refused: Refusal): ProxyError {
  const { code } = REASONS[refused.reason];
  return new ProxyError(code, {
    reason: refused.reason,
    detail: refused.detail ?? DETAILS[refused.reason],
    retryAfterMs: refused.retryAfterMs,
  });
}
