/** What a change of the graph is in the tuples of an engine of the field, and how such an engine is told an id. */
import { formatObject, formatSubject, parseObject, parseSubject, type Tuple, WILDCARD } from "../engine/tuple.ts";
import { agentGrants, apiKeyGrants, taskGrants } from "../grants.ts";
import { encodeBase64Url } from "../../wire/base64url.ts";
import type { GraphChange } from "./remote-call.ts";

const encoder = new TextEncoder();

/** An id in base64url: neither engine takes the `:` of a DID, nor all that a tenant's name may hold. A wildcard stays one. */
export function engineId(id: string): string {
  return id === WILDCARD ? id : encodeBase64Url(encoder.encode(id));
}

/** `type:id` with the id as an engine has it. @throws RangeError for what is no object: everything here has been written to D1 */
export function engineObject(object: string): { type: string; id: string } {
  const parsed = parseObject(object);
  if (!parsed.ok) throw new RangeError(parsed.error);
  return { type: parsed.value.type, id: engineId(parsed.value.id) };
}

/** A subject with its id as an engine has it; `relation` is empty but for a userset. @throws RangeError for what is no subject */
export function engineSubject(subject: string): { type: string; id: string; relation: string } {
  const parsed = parseSubject(subject);
  if (!parsed.ok) throw new RangeError(parsed.error);
  return { ...parsed.value, id: engineId(parsed.value.id) };
}

/** `type:id` as OpenFGA writes an object. */
export function engineObjectText(object: string): string {
  const { type, id } = engineObject(object);
  return formatObject(type, id);
}

/** `type:id` or `type:id#relation` as OpenFGA writes a user. */
export function engineSubjectText(subject: string): string {
  return formatSubject(engineSubject(subject));
}

/**
 * The tuples of a register, or those that a deregister of one subject takes. A new agent and a new task come with the tuples that
 * hold them in their tenant, a service account with its membership (contract §5). Of every subject at once see the engine's own
 * removal of an object.
 */
export function tuplesOf(change: GraphChange): Tuple[] {
  const { object, principal, parent, relation, tenantId = "" } = change;
  const id = object.slice(object.indexOf(":") + 1);
  const parentId = parent === null ? "" : parent.slice(parent.indexOf(":") + 1);
  if (
    change.op === "register" &&
    relation === null &&
    parent?.startsWith("tenant:") &&
    principal?.startsWith("user:")
  ) {
    return agentGrants({ agentDid: id, ownerDid: principal.slice("user:".length), tenantId: parentId });
  }
  if (principal?.startsWith("service_account:") && relation === "executor" && parent?.startsWith("tenant:")) {
    const serviceAccountId = principal.slice("service_account:".length);
    return apiKeyGrants({ serviceAccountId, agentDid: id, tenantId: parentId });
  }
  if (change.op === "register" && relation === null && parent?.startsWith("agent:") && tenantId !== "") {
    const owners = principal === null ? [] : [principal];
    return taskGrants({ taskId: id, tenantId, agentDid: parentId, owners });
  }
  return principal === null ? [] : [{ object, relation: relation ?? "owner", subject: principal }];
}
