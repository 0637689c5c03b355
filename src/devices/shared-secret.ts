/** `shared.auth.rotate`: another shared secret for the agent; the one before ends with the guarantee of contract §5. */
import type { Fenced } from "../authority/authority.ts";
import { lineageNames } from "../authority/lineage.ts";
import { apiKeyAuthority, deviceAuthority, sharedAuthority } from "../authority/names.ts";
import { scopesOf } from "../authority/principal.ts";
import { isWithin, SHARED_SCOPES } from "../authority/scopes.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../authority/secrets.ts";
import { ProxyError } from "../wire/problem.ts";
import { assertAgentActive, countChange, type DeviceCall } from "./management.ts";

export type RotatedSecret = { generation: number; secret: string; fenced: Fenced };

/**
 * Replaces the shared secret. The new one is in the answer and nowhere else.
 *
 * @throws ProxyError PROXY_AUTH_FORBIDDEN to a caller without what the secret carries; PROXY_CONFLICT for an agent that has
 *         been revoked; DRAIN_TIMEOUT
 */
export async function rotateSharedSecret(call: DeviceCall): Promise<RotatedSecret> {
  const { agentDid, gate } = call;
  // Whoever gets the secret acts with what it carries.
  if (!isWithin(SHARED_SCOPES, scopesOf(call.principal)))
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "nobody rotates beyond what it holds" });
  const secret = newSecret(SECRET_PREFIXES.shared);
  const sha256 = await hashSecret(secret);
  const { applied: generation, fenced } = await gate.end({
    apply() {
      assertAgentActive(call);
      countChange(call);
      const next = gate.shared.replace(sha256, knownTo(call));
      gate.audit({
        action: "shared.auth.rotate",
        subject: `agent:${agentDid}`,
        agentDid,
        result: "ok",
        details: { generation: next },
      });
      return next;
    },
    raise: (next) => [{ authority: sharedAuthority(agentDid), epoch: next }],
  });
  return { generation, secret, fenced };
}

/** The authority that is handed the secret, and all that it descends from: at the end of any of these the answer says so. */
function knownTo({ agentDid, principal }: DeviceCall): string[] {
  switch (principal.kind) {
    case "device":
      return [deviceAuthority(agentDid, principal.deviceId)];
    case "apiKey":
      return [apiKeyAuthority(principal.apiKeyId), ...lineageNames(agentDid, principal.lineage)];
    case "agent":
    case "operator":
    case "shared":
    case "invite":
      return [];
  }
}
