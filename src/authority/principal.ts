/** Who is calling, after the credential has been verified. */
import type { AgentDid, HumanDid } from "../wire/did.ts";
import { type Scope, SCOPES, SHARED_SCOPES } from "./scopes.ts";

/** Who is calling, after the credential has been verified. */
export type Principal =
  | { kind: "agent"; agentDid: AgentDid; ownerDid: HumanDid; jti: string; expMs: number; keyX: string }
  | {
      kind: "device";
      agentDid: AgentDid;
      ownerDid: HumanDid | null;
      deviceId: string;
      scopes: readonly Scope[];
      epoch: number;
      expMs: number;
    }
  | { kind: "shared"; agentDid: AgentDid; generation: number }
  | {
      kind: "apiKey";
      agentDid: AgentDid;
      apiKeyId: string;
      serviceAccountId: string;
      tenantId: string;
      scopes: readonly Scope[];
    }
  /** Whoever holds an invite: may register one agent of its own, and nothing else. */
  | { kind: "invite"; inviteId: string; ownerDid: HumanDid; tenantId: string }
  | { kind: "operator" };

export type PrincipalKind = Principal["kind"];

/** The scopes a principal holds: an agent all over itself, a shared secret `relay` and `send`, the rest what was granted. */
export function scopesOf(principal: Principal): readonly Scope[] {
  switch (principal.kind) {
    case "agent":
    case "operator":
      return SCOPES;
    case "invite":
      return [];
    case "shared":
      return SHARED_SCOPES;
    case "device":
    case "apiKey":
      return principal.scopes;
  }
}

export type AgentPrincipal = Extract<Principal, { kind: "agent" }>;
