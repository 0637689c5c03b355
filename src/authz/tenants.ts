/** Tenants: whose an agent is, who belongs to it, and whether its graph decides. */
import { read } from "../database/read.ts";

/** An agent's tenant and owner: the graph's word first, since an operator may have moved it; then the registry's. */
export const tenantOf = (did: string): string => `COALESCE(
  (SELECT subject_id FROM relationships WHERE object_type = 'agent' AND object_id = ${did} AND relation = 'tenant'),
  (SELECT tenant_id FROM agents WHERE agent_did = ${did}))`;

export const ownerOf = (did: string): string => `COALESCE(
  (SELECT owner_did FROM agents WHERE agent_did = ${did}),
  (SELECT subject_id FROM relationships WHERE object_type = 'agent' AND object_id = ${did} AND relation = 'owner'
     AND subject_type = 'user' ORDER BY subject_id LIMIT 1))`;

export const enforceOf = (tenant: string): string =>
  `(SELECT enforce FROM tenant_enforcement WHERE tenant_id = ${tenant})`;

export const isMember = (tenant: string, type: string, id: string): string => `EXISTS (SELECT 1 FROM relationships
  WHERE object_type = 'tenant' AND object_id = ${tenant} AND relation = 'member'
    AND subject_type = ${type} AND subject_id = ${id} AND subject_relation = '')`;

export function subjectParts(subject: string): [type: string, id: string] {
  const colon = subject.indexOf(":");
  return [subject.slice(0, colon), subject.slice(colon + 1)];
}

/**
 * Reads an agent's tenant, as the graph or else the registry has it.
 *
 * @returns a `tenantId` of null where there is no such agent
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findAgentTenant(
  db: D1Database,
  agentDid: string,
): Promise<{ tenantId: string | null; isRevoked: boolean }> {
  const select = db
    .withSession("first-primary")
    .prepare(
      `SELECT ${tenantOf("?1")} AS tenant_id, (SELECT revoked_at_ms FROM agents WHERE agent_did = ?1) AS revoked_at_ms`,
    )
    .bind(agentDid);
  const found = await read(select.first<{ tenant_id: string | null; revoked_at_ms: number | null }>());
  return { tenantId: found?.tenant_id ?? null, isRevoked: (found?.revoked_at_ms ?? null) !== null };
}
