/** What an API key descends from, as its row says it, and whether that has ended, as D1 says it. */
import { eq, isNotNull, type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import { type DeviceOrigin, type KeyOrigin, type Lineage, LINEAGE_MAX, parseLineage } from "../authority/lineage.ts";
import { apiKeyAuthority, deviceAuthority } from "../authority/names.ts";
import { operatorSubject } from "../authority/operator.ts";
import type { Principal } from "../authority/principal.ts";
import { type Scope, SCOPES } from "../authority/scopes.ts";
import { isRaisedAbove } from "../database/fencing.ts";
import { readFirst } from "../database/read.ts";
import { apiKeys } from "../database/schema.ts";
import { query, type Store } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";

/** Who makes a key: the authority's name, and what the key descends from and so ends with. */
export type Maker = { maker: string; lineage: Lineage };

/**
 * @param scopes of the key that is made
 * @throws ProxyError PROXY_CONFLICT where the key would descend from too many
 */
export function makerOf(principal: Principal, scopes: readonly Scope[]): Maker {
  switch (principal.kind) {
    case "operator":
      return { maker: operatorSubject(principal), lineage: [] };
    // What ends an agent ends everything that was issued to it.
    case "agent":
      return { maker: `agent:${principal.agentDid}`, lineage: [] };
    case "device": {
      const { agentDid, deviceId, epoch } = principal;
      return {
        maker: deviceAuthority(agentDid, deviceId),
        lineage: [{ device: deviceId, epoch, scopes: [...scopes] }],
      };
    }
    case "apiKey": {
      const { apiKeyId, lineage } = principal;
      if (lineage.length >= LINEAGE_MAX) {
        const detail = `At most ${LINEAGE_MAX} keys may have been made one by the other.`;
        throw new ProxyError("PROXY_CONFLICT", { detail });
      }
      return { maker: apiKeyAuthority(apiKeyId), lineage: [...lineage, { apiKey: apiKeyId }] };
    }
    case "shared":
    case "invite":
      throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: `${principal.kind}: makes no keys` });
  }
}

type Row = Pick<
  typeof apiKeys.$inferSelect,
  "apiKeyId" | "creatorServiceAccountId" | "firstMaker" | "lineage" | "scopes"
>;

/**
 * @returns what a key descends from; of one that an older version made, as far as that can be found out; null where a maker of
 *          it is no more, and so it has ended
 */
export async function lineageOfRow(store: Store, row: Row): Promise<Lineage | null> {
  if (row.lineage !== null) return parseLineage(row.lineage);
  const below: KeyOrigin[] = [];
  let top = row;
  while (top.creatorServiceAccountId !== null) {
    if (below.length >= LINEAGE_MAX) return null;
    const columns = {
      apiKeyId: apiKeys.apiKeyId,
      creatorServiceAccountId: apiKeys.creatorServiceAccountId,
      firstMaker: apiKeys.firstMaker,
      lineage: apiKeys.lineage,
      scopes: apiKeys.scopes,
    };
    const select = query.select(columns).from(apiKeys).where(eq(apiKeys.serviceAccountId, top.creatorServiceAccountId));
    // oxlint-disable-next-line no-await-in-loop -- from maker to maker
    const maker: Row | null = await readFirst(store, select);
    if (maker === null) return null;
    below.unshift({ apiKey: maker.apiKeyId });
    if (maker.lineage !== null) return [...parseLineage(maker.lineage), ...below];
    top = maker;
  }
  const device = deviceOrigin(top);
  return device === null ? below : [device, ...below];
}

/** A device that an older version recorded as maker; since when is not known, so every loss of a scope counts. */
function deviceOrigin(row: Row): DeviceOrigin | null {
  const device = /^device:[^/]+\/([A-Za-z0-9_-]{22})$/.exec(row.firstMaker ?? "")?.[1];
  const held = row.scopes.split(" ");
  return device === undefined ? null : { device, epoch: 0, scopes: SCOPES.filter((scope) => held.includes(scope)) };
}

const made = alias(apiKeys, "made");

/**
 * Whether a row's key has ended, as an SQL condition: by itself, with all that was issued to its agent, or with anything that it
 * descends from. Of a key without a recorded lineage it is known where its device or its maker's row says so.
 */
export function isKeyOver(): SQL {
  const { apiKeyId, agentDid, generation, lineage, scopes, firstMaker, creatorServiceAccountId } = apiKeys;
  const derived = sql`'derived:' || ${agentDid} || '/' || (origin.value ->> '$.device') || '#' || scope.value`;
  const ofLineage = sql`EXISTS (SELECT 1 FROM json_each(${lineage}) AS origin
    WHERE ${isRaisedAbove(sql`'apikey:' || (origin.value ->> '$.apiKey')`, sql`0`)}
      OR EXISTS (SELECT 1 FROM json_each(origin.value, '$.scopes') AS scope
        WHERE ${isRaisedAbove(derived, sql`(origin.value ->> '$.epoch')`)}))`;
  const ofDevice = sql`EXISTS (SELECT 1 FROM json_each('["' || replace(${scopes}, ' ', '","') || '"]') AS scope
    WHERE ${isRaisedAbove(sql`'derived:' || substr(${firstMaker}, 8) || '#' || scope.value`, sql`0`)})`;
  const isOrphan = sql`${creatorServiceAccountId} IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM ${apiKeys} AS made WHERE ${made.serviceAccountId} = ${creatorServiceAccountId})`;
  return sql`(${isRaisedAbove(sql`'apikey:' || ${apiKeyId}`, sql`0`)}
    OR ${isRaisedAbove(sql`'issued:' || ${agentDid}`, sql`${generation}`)}
    OR CASE WHEN ${isNotNull(lineage)} THEN ${ofLineage}
      ELSE (${firstMaker} LIKE 'device:%' AND ${ofDevice}) OR (${isOrphan}) END)`;
}
