/** Who an agent is, for those who know it: its peers, the fellows of its groups, itself, and an operator. Contract §3. */
import { and, eq, isNull, sql } from "drizzle-orm";
import { readFirst } from "../database/read.ts";
import { agents, trustPairs } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import type { AgentDid } from "../wire/did.ts";
import { isFellow } from "./groups/rows.ts";
import type { Profile } from "./profile.ts";

/** `since`: when it was registered, in milliseconds since 1970. */
export type AgentProfile = { agentDid: AgentDid; name: string; ownerName?: string; framework: string; since: number };

/** An agent of a registry elsewhere is known by what it said of itself when it paired, which names no framework. */
const FRAMEWORK_UNKNOWN = "unknown";

type Row = {
  name: string | null;
  framework: string | null;
  since: number | null;
  /** How it introduced itself to the viewer; null where the two are not paired. */
  introduced: string | null;
  pairedAtMs: number | null;
  isFellow: 0 | 1;
};

/**
 * One read, whether the agent exists or not and whoever asks.
 *
 * @param viewer the agent that asks; null for an operator, who may know everybody
 * @returns null for an agent that is not there, or that the viewer does not know
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function lookUpProfile(
  db: D1Database,
  viewer: AgentDid | null,
  agentDid: AgentDid,
): Promise<AgentProfile | null> {
  const me = viewer ?? agentDid;
  const [low, high] = me < agentDid ? [me, agentDid] : [agentDid, me];
  const introduced = agentDid === low ? trustPairs.lowProfile : trustPairs.highProfile;
  const isPair = and(eq(trustPairs.lowDid, low), eq(trustPairs.highDid, high), isNull(trustPairs.removedAtMs));
  const select = query.all<Row>(sql`
    SELECT ${agents.name} AS "name", ${agents.framework} AS "framework", ${agents.createdAtMs} AS "since",
      ${introduced} AS "introduced", ${trustPairs.confirmedAtMs} AS "pairedAtMs", ${isFellow(me, agentDid)} AS "isFellow"
    FROM (SELECT 1) LEFT JOIN ${agents} ON ${eq(agents.agentDid, agentDid)} LEFT JOIN ${trustPairs} ON ${isPair}`);
  // At the primary: the end of a pairing is the end of this, too.
  const row = await readFirst(db.withSession("first-primary"), select);
  const isKnown = row !== null && (me === agentDid || row.introduced !== null || row.isFellow === 1);
  return isKnown ? shown(agentDid, row) : null;
}

function shown(agentDid: AgentDid, row: Row): AgentProfile | null {
  const introduced = row.introduced === null ? null : (JSON.parse(row.introduced) as Profile);
  const name = row.name ?? introduced?.agentName;
  const since = row.since ?? row.pairedAtMs;
  if (name === undefined || since === null) return null;
  const ownerName = introduced?.humanName;
  const framework = row.framework ?? FRAMEWORK_UNKNOWN;
  return { agentDid, name, ...(ownerName === undefined ? {} : { ownerName }), framework, since };
}
