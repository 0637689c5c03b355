/**
 * Which agents there are, for those who present a secret that only the agent's own gate can verify. To ask a gate is to wake an
 * object, which leaves a file behind in some runtimes, so nobody is let ask for an agent that does not exist.
 */
import { eq, sql } from "drizzle-orm";
import type { Config } from "../config.ts";
import { readFirst } from "../database/read.ts";
import { agents } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { withDeadline } from "../resilience/deadline.ts";
import { errorFields, type Log } from "../telemetry/log.ts";
import { type AgentDid, didAuthority } from "../wire/did.ts";

/** Agents that are remembered to exist; what exists once is known for as long as it is remembered. */
const REMEMBERED_MAX = 10_000;

export type KnownAgents = {
  /**
   * Whether there may be such an agent. With the embedded registry that is whether it was registered, one read of D1 at the
   * first time; where D1 does not answer, and with a registry elsewhere, any agent of the registry's authority may exist.
   */
  mayExist(agentDid: AgentDid, scope: { db: D1Database; log: Log }): Promise<boolean>;
};

/** @returns the known agents of one isolate, at most 10,000 of them remembered */
export function createKnownAgents(
  config: Pick<Config, "registryUrl" | "registryAuthority" | "storeTimeoutMs">,
): KnownAgents {
  const known = new Set<AgentDid>();

  const remember = (agentDid: AgentDid): void => {
    const oldest = known.values().next().value;
    if (known.size >= REMEMBERED_MAX && oldest !== undefined) known.delete(oldest);
    known.add(agentDid);
  };

  return {
    async mayExist(agentDid, { db, log }) {
      if (didAuthority(agentDid) !== config.registryAuthority) return false;
      if (config.registryUrl !== "embedded" || known.has(agentDid)) return true;
      const select = query
        .select({ found: sql<number>`1` })
        .from(agents)
        .where(eq(agents.agentDid, agentDid));
      try {
        const found = await withDeadline(config.storeTimeoutMs, () => readFirst(db, select));
        if (found !== null) remember(agentDid);
        return found !== null;
      } catch (error) {
        // The gate decides, as it does for every agent that is known.
        log.warn("agents.lookup_failed", errorFields(error));
        return true;
      }
    },
  };
}
