/** Admission of the shared secret of an agent. */
import type { AuthorityRef } from "../../authority/reference.ts";
import { equalHashes } from "../../authority/secrets.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GateCredential } from "../protocol/calls.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import { failedGuess } from "./guesses.ts";
import { countRequest } from "./rate-limit.ts";
import type { CredentialStores } from "./stores.ts";

const NO_HASH = "A".repeat(43);

export async function admitShared(
  stores: CredentialStores | null,
  self: AgentDid,
  { secretHash }: Extract<GateCredential, { kind: "shared" }>,
  address: string | null,
): Promise<AuthorityRef> {
  const matches = equalHashes(stores?.shared.sha256() ?? NO_HASH, secretHash);
  if (stores === null) throw new GateRefusal("gate-credential-refused");
  if (!matches || stores.authority.isEnded()) throw failedGuess(stores.lockout, address);
  return stores.commits.commit(() => {
    const nowMs = Date.now();
    // Compared again: the secret may have been replaced since, and whoever knew the old one is not let in under the new.
    const stillMatches = equalHashes(stores.shared.sha256() ?? NO_HASH, secretHash);
    if (!stillMatches || stores.authority.isEnded()) throw new GateRefusal("gate-credential-refused");
    countRequest(stores.rate, nowMs);
    const generation = stores.shared.generation();
    return {
      kind: "shared",
      epoch: generation,
      expMs: null,
      principal: { kind: "shared", agentDid: self, generation },
    };
  });
}
