/** Who is calling, after the credential has been verified. */
import type { AgentDid, HumanDid } from "../wire/did.ts";
import type { Lineage } from "./lineage.ts";
import { agentAuthority, deviceAuthority, sharedAuthority } from "./names.ts";
import { type OperatorPrincipal, operatorSubject } from "./operator.ts";
import { type Scope, SCOPES, SHARED_SCOPES } from "./scopes.ts";

/** Who is calling, after the credential has been verified. */
export type Principal =
  | {
      kind: "agent";
      agentDid: AgentDid;
      ownerDid: HumanDid;
      jti: string;
      expMs: number;
      keyX: string;
      /** By its identity token; missing in what an earlier version has kept. */
      name?: string;
    }
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
      expMs: number | null;
      /** The agent, device or operator at the beginning of its making; null where no version recorded it. */
      originator: string | null;
      lineage: Lineage;
    }
  /** Whoever holds an invite: may register one agent of its own, and nothing else. */
  | { kind: "invite"; inviteId: string; ownerDid: HumanDid; tenantId: string }
  | OperatorPrincipal;

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

/** @returns the agent, device or operator that stands at the beginning of a credential's making; null where none is recorded */
export function originatorOf(principal: Principal): string | null {
  switch (principal.kind) {
    case "operator":
      return operatorSubject(principal);
    case "agent":
      return agentAuthority(principal.agentDid);
    case "device":
      return deviceAuthority(principal.agentDid, principal.deviceId);
    case "shared":
      return sharedAuthority(principal.agentDid);
    case "invite":
      return `invite:${principal.inviteId}`;
    case "apiKey":
      return principal.originator;
  }
}

export type AgentPrincipal = Extract<Principal, { kind: "agent" }>;
