/** The agents of the registry. */
import { and, asc, eq, getTableColumns, gt, isNull, sql } from "drizzle-orm";
import { type Undone, violates } from "../database/batch.ts";
import { guard } from "../database/guard.ts";
import { readAll, readFirst } from "../database/read.ts";
import { agentKeys, agents, aits } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { decodeBase64Url, encodeBase64Url } from "../wire/base64url.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import type { Registry } from "./registry.ts";

/** An agent as it stands in the registry. */
export type Agent = Readonly<Omit<typeof agents.$inferSelect, "revokedReason">>;

/** An agent in a list, with the end of its longest identity token. */
export type ListedAgent = Agent & { readonly aitExpiresAtMs: number | null };

const { revokedReason: _published, ...SHOWN } = getTableColumns(agents);

/** @returns the agent, revoked or not, or null. */
export async function findAgent(registry: Registry, agentDid: AgentDid): Promise<Agent | null> {
  return readFirst(registry.db, query.select(SHOWN).from(agents).where(eq(agents.agentDid, agentDid)));
}

/** @returns the agent that a key serves or has served, or null. */
export async function ownerOfKey(registry: Registry, publicKey: string): Promise<AgentDid | null> {
  const select = query
    .select({ agentDid: agentKeys.agentDid })
    .from(agentKeys)
    .where(eq(agentKeys.publicKey, publicKey));
  return (await readFirst(registry.db, select))?.agentDid ?? null;
}

/** The statements that make an agent and give it its key. */
export function insertAgent(agent: Agent): Statement<D1Result>[] {
  return [query.insert(agents).values(agent), insertAgentKey(agent.agentDid, agent.publicKey, agent.createdAtMs)];
}

/** Gives a key to an agent; fails its batch when the key was ever given to any ({@link isKeyTaken}). */
export function insertAgentKey(agentDid: AgentDid, publicKey: string, sinceMs: number): Statement<D1Result> {
  return query.insert(agentKeys).values({ publicKey, agentDid, sinceMs });
}

/** @returns whether a batch was undone because a key is or was an agent's. */
export function isKeyTaken(undone: Undone): boolean {
  return violates(undone, agents.publicKey) || violates(undone, agentKeys.publicKey);
}

/** Undoes a batch unless the agent is unrevoked and holds this key. */
export function guardAgentHolds(agentDid: AgentDid, publicKey: string): Statement<D1Result> {
  const holds = and(eq(agents.agentDid, agentDid), eq(agents.publicKey, publicKey), isNull(agents.revokedAtMs));
  return guard(sql`EXISTS (SELECT 1 FROM ${agents} WHERE ${holds})`);
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
  const unrevoked = and(eq(aits.agentDid, agents.agentDid), isNull(aits.revokedAtMs));
  const longest = sql<number | null>`(SELECT MAX(${aits.expiresAtMs}) FROM ${aits} WHERE ${unrevoked})`;
  const found = await readAll(
    registry.db,
    query
      .select({ ...SHOWN, aitExpiresAtMs: longest.as("ait_expires_at_ms") })
      .from(agents)
      .where(gt(agents.agentDid, afterOf(page.cursor)))
      .orderBy(asc(agents.agentDid))
      .limit(page.limit + 1),
  );
  const shown = found.slice(0, page.limit);
  const last = shown.at(-1);
  if (found.length <= page.limit || last === undefined) return { agents: shown };
  return { agents: shown, nextCursor: encodeBase64Url(new TextEncoder().encode(last.agentDid)) };
}

/** A cursor is the last DID of the page before: within one authority DIDs sort by the time they were made. */
function afterOf(cursor: string | undefined): AgentDid {
  const bytes = decodeBase64Url(cursor ?? "");
  if (bytes === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "cursor: is none of this list." });
  return new TextDecoder().decode(bytes) as AgentDid;
}
