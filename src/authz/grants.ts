/** The tuples that stand by themselves (contract §5): what registering an agent, an API key and a task grants, and no more. */
import type { Tuple } from "./engine/tuple.ts";

/** `user:<did>`, the subject of a person and of a device that acts for one. */
export function userSubject(ownerDid: string): string {
  return `user:${ownerDid}`;
}

/** `agent:<did>`, as object and as subject. */
export function agentObject(agentDid: string): string {
  return `agent:${agentDid}`;
}

/** `service_account:<id>`, the subject of an API key. */
export function serviceAccountSubject(serviceAccountId: string): string {
  return `service_account:${serviceAccountId}`;
}

/** `tenant:<id>`. */
export function tenantObject(tenantId: string): string {
  return `tenant:${tenantId}`;
}

/** `task:<id>`. */
export function taskObject(taskId: string): string {
  return `task:${taskId}`;
}

/** An agent: its tenant, its owner, both as members of the tenant, and the agent as executor of itself. */
export function agentGrants(agent: { agentDid: string; ownerDid: string; tenantId: string }): Tuple[] {
  const object = agentObject(agent.agentDid);
  const owner = userSubject(agent.ownerDid);
  const tenant = tenantObject(agent.tenantId);
  return [
    { object, relation: "tenant", subject: tenant },
    { object, relation: "owner", subject: owner },
    { object, relation: "executor", subject: object },
    { object: tenant, relation: "member", subject: owner },
    { object: tenant, relation: "member", subject: object },
  ];
}

/** An API key: its service account is a member of the tenant and executor of its agent. */
export function apiKeyGrants(key: { serviceAccountId: string; agentDid: string; tenantId: string }): Tuple[] {
  const subject = serviceAccountSubject(key.serviceAccountId);
  return [
    { object: tenantObject(key.tenantId), relation: "member", subject },
    { object: agentObject(key.agentDid), relation: "executor", subject },
  ];
}

/** A task: its tenant, its agent as parent, and its owners (subjects; none where the operator made it). */
export function taskGrants(task: {
  taskId: string;
  tenantId: string;
  agentDid: string;
  owners: readonly string[];
}): Tuple[] {
  const object = taskObject(task.taskId);
  return [
    { object, relation: "tenant", subject: tenantObject(task.tenantId) },
    { object, relation: "parent", subject: agentObject(task.agentDid) },
    ...task.owners.map((subject) => ({ object, relation: "owner", subject })),
  ];
}
