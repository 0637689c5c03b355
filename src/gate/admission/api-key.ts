/** Admission of an API key, which the Worker has found in D1. */
import { holderOf } from "../../authority/holder.ts";
import type { ApiKeyGrant, AuthorityRef } from "../../authority/reference.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import { countRequest, type Rate } from "./rate-limit.ts";

/**
 * Admits a request under an API key that the Worker has just read from D1.
 *
 * @param endsAuthority whether the request is a call that ends an authority, for which the rate has a reserve
 * @throws GateRefusal where the key has been ended since
 */
export async function admitApiKey(
  {
    commits,
    rate,
    endReason,
  }: {
    commits: GroupCommit;
    rate: Rate;
    endReason: (ref: AuthorityRef) => string | null;
  },
  key: ApiKeyGrant,
  endsAuthority: boolean,
): Promise<AuthorityRef> {
  const ref: AuthorityRef = { kind: "apiKey", epoch: 0, ...key };
  return commits.commit(() => {
    if (endReason(ref) !== null) throw new GateRefusal("gate-credential-refused");
    countRequest(rate, { holder: holderOf(key.principal), endsAuthority }, Date.now());
    return ref;
  });
}
