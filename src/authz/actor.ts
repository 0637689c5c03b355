/** Who acts on a task: its subject in the graph, and whom a task that it makes names as its creator and its owners. */
import type { Principal } from "../authority/principal.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { agentObject, serviceAccountSubject, userSubject } from "./grants.ts";

export type Actor = {
  /** The one subject that the graph is asked about. */
  readonly subject: string;
  /** The agent it is, or acts through: its tenant is where names are looked up. */
  readonly agentDid: AgentDid;
  readonly kind: "agent" | "device" | "apiKey";
  /** The person it acts for; null for a service account. */
  readonly userId: string | null;
  readonly serviceAccountId: string | null;
  /** Subjects that own what it creates. */
  readonly owners: readonly string[];
};

/**
 * @returns the actor, or null for the operator, who is above the graph
 * @throws ProxyError PROXY_AUTH_FORBIDDEN for a credential that stands for no subject
 */
export function actorOf(principal: Principal): Actor | null {
  const none = { userId: null, serviceAccountId: null };
  switch (principal.kind) {
    case "operator":
      return null;
    case "agent": {
      const { agentDid, ownerDid } = principal;
      const subject = agentObject(agentDid);
      return { ...none, kind: "agent", subject, agentDid, userId: ownerDid, owners: [subject, userSubject(ownerDid)] };
    }
    case "device": {
      const { agentDid, ownerDid } = principal;
      if (ownerDid === null)
        throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "the agent's owner is not known here yet" });
      const subject = userSubject(ownerDid);
      return { ...none, kind: "device", subject, agentDid, userId: ownerDid, owners: [subject] };
    }
    case "apiKey": {
      const { agentDid, serviceAccountId } = principal;
      const subject = serviceAccountSubject(serviceAccountId);
      return { ...none, kind: "apiKey", subject, agentDid, serviceAccountId, owners: [subject] };
    }
    case "shared":
    case "invite":
      throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a credential without any scope for tasks" });
  }
}

/** The subject that a message without a sending agent names: who the API key or the operator is. */
export function senderSubject(principal: Principal): string {
  if (principal.kind === "apiKey") return serviceAccountSubject(principal.serviceAccountId);
  return principal.kind === "operator" ? `operator:${principal.name}` : principal.kind;
}
