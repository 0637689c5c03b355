/** The agents of the registry. */
import { guard } from "../database/guard.ts";
import { read } from "../database/read.ts";
import { decodeBase64Url, encodeBase64Url } from "../wire/base64url.ts";
import type { AgentDid, HumanDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import type { Registry } from "./registry.ts";

/** An agent as it stands in the registry. */
export type Agent = {
  readonly agentDid: AgentDid;
  readonly ownerDid: HumanDid;
  readonly tenantId: string;
  readonly name: string;
  readonly framework: string;
  readonly description: string | null;
  /** base64url of 32 bytes: the key it proves possession of. */
  readonly publicKey: string;
  readonly aitTtlSeconds: number;
  readonly createdAtMs: number;
  readonly rekeyedAtMs: number | null;
  readonly revokedAtMs: number | null;
};

/** An agent in a list, with the end of its longest identity token. */
export type ListedAgent = Agent & { readonly aitExpiresAtMs: number | null };

type AgentRow = {
  agent_did: AgentDid;
  owner_did: HumanDid;
  tenant_id: string;
  name: string;
  framework: string;
  description: string | null;
  public_key: string;
  ait_ttl_seconds: number;
  created_at_ms: number;
  rekeyed_at_ms: number | null;
  revoked_at_ms: number | null;
};

const COLUMNS = `agent_did, owner_did, tenant_id, name, framework, description, public_key, ait_ttl_seconds,
  created_at_ms, rekeyed_at_ms, revoked_at_ms`;

function agentFrom(row: AgentRow): Agent {
  return {
    agentDid: row.agent_did,
    ownerDid: row.owner_did,
    tenantId: row.tenant_id,
    name: row.name,
    framework: row.framework,
    description: row.description,
    publicKey: row.public_key,
    aitTtlSeconds: row.ait_ttl_seconds,
    createdAtMs: row.created_at_ms,
    rekeyedAtMs: row.rekeyed_at_ms,
    revokedAtMs: row.revoked_at_ms,
  };
}

/** @returns the agent, revoked or not, or null. */
export async function findAgent(registry: Registry, agentDid: AgentDid): Promise<Agent | null> {
  const select = registry.db.prepare(`SELECT ${COLUMNS} FROM agents WHERE agent_did = ?1`).bind(agentDid);
  const row = await read(select.first<AgentRow>());
  return row === null ? null : agentFrom(row);
}

/** @returns the agent that a key serves or has served, or null. */
export async function ownerOfKey(registry: Registry, publicKey: string): Promise<AgentDid | null> {
  const select = registry.db.prepare("SELECT agent_did FROM agent_keys WHERE public_key = ?1").bind(publicKey);
  return read(select.first<AgentDid>("agent_did"));
}

/** The statements that make an agent and give it its key. */
export function insertAgent(registry: Registry, agent: Agent): D1PreparedStatement[] {
  return [
    registry.db
      .prepare(
        `INSERT INTO agents (agent_did, owner_did, tenant_id, name, framework, description, public_key, ait_ttl_seconds, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)`,
      )
      .bind(
        agent.agentDid,
        agent.ownerDid,
        agent.tenantId,
        agent.name,
        agent.framework,
        agent.description,
        agent.publicKey,
        agent.aitTtlSeconds,
        agent.createdAtMs,
      ),
    insertAgentKey(registry, agent.agentDid, agent.publicKey, agent.createdAtMs),
  ];
}

/** Gives a key to an agent; fails its batch when the key was ever given to any. */
export function insertAgentKey(
  registry: Registry,
  agentDid: AgentDid,
  publicKey: string,
  sinceMs: number,
): D1PreparedStatement {
  return registry.db
    .prepare("INSERT INTO agent_keys (public_key, agent_did, since_ms) VALUES (?1, ?2, ?3)")
    .bind(publicKey, agentDid, sinceMs);
}

/** Undoes a batch unless the agent is unrevoked and holds this key. */
export function guardAgentHolds(registry: Registry, agentDid: AgentDid, publicKey: string): D1PreparedStatement {
  return guard(
    registry.db,
    "EXISTS (SELECT 1 FROM agents WHERE agent_did = ?1 AND public_key = ?2 AND revoked_at_ms IS NULL)",
    agentDid,
    publicKey,
  );
}

/**
 * A page of the registry's agents, oldest first.
 *
 * @param page `cursor` from the page before; `limit` agents at most
 * @throws ProxyError PROXY_BAD_REQUEST for a cursor that this registry did not make
 */
export async function listAgents(
  registry: Registry,
  page: { cursor?: string | undefined; limit: number },
): Promise<{ agents: ListedAgent[]; nextCursor?: string }> {
  const select = registry.db
    .prepare(
      `SELECT ${COLUMNS},
         (SELECT max(expires_at_ms) FROM aits WHERE aits.agent_did = agents.agent_did AND aits.revoked_at_ms IS NULL) AS ait_expires_at_ms
       FROM agents WHERE agent_did > ?1 ORDER BY agent_did LIMIT ?2`,
    )
    .bind(page.cursor === undefined ? "" : afterOf(page.cursor), page.limit + 1);
  const { results } = await read(select.all<AgentRow & { ait_expires_at_ms: number | null }>());
  const agents = results
    .slice(0, page.limit)
    .map((row) => ({ ...agentFrom(row), aitExpiresAtMs: row.ait_expires_at_ms }));
  const last = agents.at(-1);
  if (results.length <= page.limit || last === undefined) return { agents };
  return { agents, nextCursor: encodeBase64Url(new TextEncoder().encode(last.agentDid)) };
}

/** A cursor is the last DID of the page before: within one authority DIDs sort by the time they were made. */
function afterOf(cursor: string): string {
  const bytes = decodeBase64Url(cursor);
  if (bytes === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "cursor: is none of this list." });
  return new TextDecoder().decode(bytes);
}
