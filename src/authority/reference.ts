/** What a socket or a call remembers of the authority it began under, and whether that authority still holds. */
import type { FencingToken } from "../database/fencing.ts";
import { RELAY_CLOSE_REASON } from "../wire/relay-close.ts";
import type { AgentAuthority } from "./agent.ts";
import type { Devices } from "./device/devices.ts";
import type { ApiKeys } from "./ended-api-keys.ts";
import { lineageHolds, lineageTokens } from "./lineage.ts";
import { agentAuthority, apiKeyAuthority, deviceAuthority, issuedAuthority, sharedAuthority } from "./names.ts";
import type { AgentPrincipal, Principal } from "./principal.ts";
import type { SharedSecret } from "./shared-secret.ts";

/** What a socket or a call remembers of the authority it began under. Plain data: it stands in socket attachments. */
export type AuthorityRef =
  | { kind: "agent"; epoch: number; jti: string; expMs: number; principal: AgentPrincipal }
  | {
      kind: "device";
      epoch: number;
      expMs: number;
      principal: Extract<Principal, { kind: "device" }>;
      mayStillReply?: true;
    }
  | { kind: "shared"; epoch: number; expMs: null; principal: Extract<Principal, { kind: "shared" }> }
  | {
      kind: "apiKey";
      epoch: number;
      expMs: number | null;
      principal: Extract<Principal, { kind: "apiKey" }>;
      generation: number;
      mayStillReply?: true;
    };

export type Authorities = { agent: AgentAuthority; devices: Devices; shared: SharedSecret; apiKeys: ApiKeys };

/** Why something that began under an authority may not go on at this moment, as its socket is told; null when it may. */
export function endReason(
  { agent, devices, shared, apiKeys }: Authorities,
  ref: AuthorityRef,
  nowMs: number,
): string | null {
  switch (ref.kind) {
    case "agent":
      if (!agent.holds(ref)) return RELAY_CLOSE_REASON.agentRevoked;
      break;
    case "device":
      if (agent.isEnded()) return RELAY_CLOSE_REASON.agentRevoked;
      if (!devices.holds(ref)) return devices.endReason(ref.principal.deviceId);
      break;
    case "shared":
      if (agent.isEnded()) return RELAY_CLOSE_REASON.agentRevoked;
      if (!shared.holds(ref.epoch)) return RELAY_CLOSE_REASON.gatewayAuthChanged;
      break;
    case "apiKey":
      if (agent.isEnded()) return RELAY_CLOSE_REASON.agentRevoked;
      if (!apiKeys.holds(ref)) return RELAY_CLOSE_REASON.gatewayAuthChanged;
      if (ref.mayStillReply !== true && !lineageHolds({ devices, apiKeys }, ref.principal.lineage))
        return RELAY_CLOSE_REASON.gatewayAuthChanged;
      break;
  }
  return ref.expMs !== null && ref.expMs <= nowMs ? RELAY_CLOSE_REASON.credentialExpired : null;
}

/**
 * What every batch in D1 under an authority is fenced by: the authority itself, what all that was issued to the agent ends with,
 * and whatever it descends from.
 *
 * @param generation under which everything is issued that holds at this moment
 */
export function fencingTokens(self: string, ref: AuthorityRef, generation: number): FencingToken[] {
  const issued = (epoch: number): FencingToken => ({ authority: issuedAuthority(self), epoch });
  switch (ref.kind) {
    case "agent":
      return [{ authority: agentAuthority(self), epoch: ref.epoch }];
    case "device":
      return [{ authority: deviceAuthority(self, ref.principal.deviceId), epoch: ref.epoch }, issued(generation)];
    case "shared":
      return [{ authority: sharedAuthority(self), epoch: ref.epoch }, issued(generation)];
    case "apiKey": {
      const { apiKeyId, lineage } = ref.principal;
      const own = [{ authority: apiKeyAuthority(apiKeyId), epoch: ref.epoch }, issued(ref.generation)];
      // One that has ended its own maker still finishes what it was asked for.
      return ref.mayStillReply === true ? own : [...own, ...lineageTokens(self, lineage)];
    }
  }
}

/** An API key as D1 holds it; plain data, so that it can cross to the gate. */
export type ApiKeyGrant = {
  principal: Extract<Principal, { kind: "apiKey" }>;
  generation: number;
  expMs: number | null;
};
