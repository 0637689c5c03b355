/** What a verified request brings to its gate, and how the gate decides on it: flags, window, nonce, rate, in this order. */
import type { Reason, Refusal } from "../../auth/reasons.ts";
import type { Principal } from "../../rpc/method.ts";
import type { AgentAuthority } from "../../authority/agent.ts";
import type { Drift } from "./clock-drift.ts";
import type { Nonces } from "./nonces.ts";
import type { Rate } from "./rate-limit.ts";
import { readText, writeMeta } from "../storage/schema.ts";

export type AgentPrincipal = Extract<Principal, { kind: "agent" }>;

/** An agent whose identity token, revocation and proof the chain has verified; plain data, so that it can cross to the gate. */
export type AgentAdmission = {
  principal: AgentPrincipal;
  nonce: string;
  timestampSeconds: number;
  /** `validatedAtMs` null: the registry did not answer, and the gate's last good validation decides. Absent: not asked for. */
  access?: { keyHash: string; validatedAtMs: number | null };
};

/** A send, beside its body. */
export type Submission = {
  admission: AgentAdmission;
  to: string;
  trustEpoch: number;
  bytes: number;
  contentType?: string;
  conversationId?: string;
  replyTo?: string;
  traceparent?: string;
  /** The caller waits for the end of it. */
  isAwaited?: true;
  idempotency?: { key: string; bodySha256: string };
};

/** What the gate answers to a send. */
export type SubmissionReply =
  | { ok: true; deliveryId: string; delivered: boolean; queueDepth: number }
  | { ok: false; refusal: Refusal };

/** Undoes the transaction it is thrown in, and carries the reason out of it. */
export class GateRefusal extends Error {
  override readonly name = "GateRefusal";
  readonly refusal: Refusal;

  constructor(reason: Reason, retryAfterMs?: number) {
    super(reason);
    this.refusal = retryAfterMs === undefined ? { reason } : { reason, retryAfterMs };
  }
}

export type AdmissionParts = {
  acquaintance: Acquaintance;
  authority: AgentAuthority;
  nonces: Nonces;
  rate: Rate;
  drift: Drift;
  accessMaxStaleMs: number;
};

/** A validation is written again only when it is this much newer: once a refresh, not once a request. */
const VALIDATION_GRAIN_MS = 10_000;

/**
 * Admits one request of the agent and remembers its nonce. Part of the caller's transaction, so a request that is refused
 * burns no nonce.
 *
 * @param standing what refuses this request if nothing here does: an agent that is no more hears that first
 * @throws GateRefusal
 */
export function admitAgent(
  parts: AdmissionParts,
  admission: AgentAdmission,
  nowMs: number,
  standing: GateRefusal | null = null,
): void {
  const { principal, nonce, timestampSeconds, access } = admission;
  if (!parts.authority.accepts(principal.jti) || principal.expMs <= nowMs) throw new GateRefusal("gate-agent-revoked");
  if (access?.validatedAtMs === null) {
    const known = parts.acquaintance.validatedAtMs(access.keyHash);
    if (known === null || known + parts.accessMaxStaleMs <= nowMs) {
      throw new GateRefusal("gate-access-unknown", 1_000);
    }
  }
  const waitMs = parts.rate.waitMs(nowMs);
  // A request that will be refused is only judged: nothing is written before the last refusal.
  const judge = waitMs > 0 || standing !== null ? parts.nonces.judge : parts.nonces.use;
  const verdict = judge(principal.keyX, nonce, timestampSeconds, nowMs);
  if (verdict === "pruned") throw new GateRefusal("gate-nonce-too-old");
  if (verdict === "outside-window") throw new GateRefusal("gate-timestamp-skewed");
  if (verdict === "seen") throw new GateRefusal("gate-nonce-replayed");
  if (waitMs > 0) throw new GateRefusal("gate-rate-exceeded", waitMs);
  if (standing !== null) throw standing;
  parts.rate.count(nowMs);
  parts.drift.observe(timestampSeconds * 1_000 - nowMs, nowMs);
  parts.acquaintance.meet(principal.ownerDid);
  if (access !== undefined && access.validatedAtMs !== null)
    parts.acquaintance.validated(access.keyHash, access.validatedAtMs);
}

/** The agent's last good access validations and its owner: the second level of the chain's cache. Mirrored in memory. */
export type Acquaintance = ReturnType<typeof createAcquaintance>;

export function createAcquaintance(sql: SqlStorage) {
  let ownerDid = readText(sql, "owner_did");
  const validatedAtMs = new Map<string, number>(
    sql
      .exec<{ key_hash: string; validated_at_ms: number }>("SELECT key_hash, validated_at_ms FROM access_validations")
      .toArray()
      .map((row) => [row.key_hash, row.validated_at_ms]),
  );

  return {
    ownerDid: (): string | null => ownerDid,
    validatedAtMs: (keyHash: string): number | null => validatedAtMs.get(keyHash) ?? null,

    /** Part of the caller's transaction. Should that be undone, the next request after a waking writes it again. */
    meet(owner: string): void {
      if (ownerDid === owner) return;
      ownerDid = owner;
      writeMeta(sql, "owner_did", owner);
    },

    validated(keyHash: string, atMs: number): void {
      const known = validatedAtMs.get(keyHash);
      if (known !== undefined && known >= atMs - VALIDATION_GRAIN_MS) return;
      validatedAtMs.set(keyHash, atMs);
      sql.exec(
        "INSERT INTO access_validations (key_hash, validated_at_ms) VALUES (?, ?) ON CONFLICT (key_hash) DO UPDATE SET validated_at_ms = excluded.validated_at_ms",
        keyHash,
        atMs,
      );
    },

    /** Forgets validations too old to vouch for anything. */
    prune(olderThanMs: number): void {
      for (const [keyHash, atMs] of validatedAtMs) if (atMs < olderThanMs) validatedAtMs.delete(keyHash);
      sql.exec("DELETE FROM access_validations WHERE validated_at_ms < ?", olderThanMs);
    },
  };
}
