/** A refusal that undoes the transaction it is thrown in. */
import type { Reason, Refusal } from "../../auth/reasons.ts";

/** Undoes the transaction it is thrown in, and carries the reason out of it. */
export class GateRefusal extends Error {
  override readonly name = "GateRefusal";
  readonly refusal: Refusal;

  constructor(reason: Reason, retryAfterMs?: number) {
    super(reason);
    this.refusal = retryAfterMs === undefined ? { reason } : { reason, retryAfterMs };
  }
}
