/** Admission of the shared secret of an agent. */
import type { Lockout } from "../../auth/limits/lockout.ts";
import type { AgentAuthority } from "../../authority/agent.ts";
import { holderOf } from "../../authority/holder.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import { equalHashes } from "../../authority/secrets.ts";
import type { SharedSecret } from "../../authority/shared-secret.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GateCredential } from "../protocol/calls.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import { failedGuess } from "./guesses.ts";
import { countRequest, type Rate } from "./rate-limit.ts";

/** The stores by which a shared secret is judged. */
export type SharedAdmissionStores = {
  self: AgentDid;
  commits: GroupCommit;
  authority: Pick<AgentAuthority, "isEnded">;
  shared: Pick<SharedSecret, "sha256" | "generation">;
  rate: Rate;
};

/** `address` is whom a failed guess is counted against. */
export type SharedCaller = { credential: Extract<GateCredential, { kind: "shared" }>; address: string | null };

const NO_HASH = "A".repeat(43);

/**
 * Admits a request under the shared secret.
 *
 * @param stores null where this agent has no gate yet: nothing is written, and a failure is counted all the same
 * @throws GateRefusal
 */
export async function admitShared(
  stores: SharedAdmissionStores | null,
  lockout: Lockout,
  { credential: { secretHash }, address }: SharedCaller,
  endsAuthority = false,
): Promise<AuthorityRef> {
  const matches = equalHashes(stores?.shared.sha256() ?? NO_HASH, secretHash);
  if (stores === null || !matches || stores.authority.isEnded()) throw failedGuess(lockout, address);
  return stores.commits.commit(() => {
    const nowMs = Date.now();
    // Compared again: the secret may have been replaced since, and whoever knew the old one is not let in under the new.
    const stillMatches = equalHashes(stores.shared.sha256() ?? NO_HASH, secretHash);
    if (!stillMatches || stores.authority.isEnded()) throw new GateRefusal("gate-credential-refused");
    const generation = stores.shared.generation();
    const principal = { kind: "shared" as const, agentDid: stores.self, generation };
    countRequest(stores.rate, { holder: holderOf(principal), endsAuthority }, nowMs);
    return { kind: "shared", epoch: generation, expMs: null, principal };
  });
}
