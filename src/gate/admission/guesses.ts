/** Failed guesses at a secret, counted by address. */
import type { Lockout } from "../../auth/limits/lockout.ts";
import { GateRefusal } from "../protocol/refusal.ts";

/** @returns the refusal of a failed guess: the one for every wrong secret, or that the address has failed too often */
export function failedGuess(lockout: Lockout, address: string | null): GateRefusal {
  const lockedMs = lockout.failed(address, Date.now());
  return lockedMs > 0 ? new GateRefusal("gate-address-locked", lockedMs) : new GateRefusal("gate-credential-refused");
}
