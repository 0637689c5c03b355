/** Brings the entries of a registry's revocation list to the gates of their agents, so that idle sockets end too. */
import { errorFields, type Log } from "../telemetry/log.ts";
import type { Result } from "../wire/result.ts";

export type RevocationDeps = {
  fetchList: () => Promise<
    Result<{ iat: number | null; revocations: readonly { jti: string; agentDid: string }[] }, { reason: string }>
  >;
  endTokens: (agentDid: string, tokens: { jti: string; expMs: number }[]) => Promise<void>;
  /** How old a list may be that a request is still decided by. */
  listMaxAgeMs: number;
  now: () => number;
  log: Log;
};

const GATES_AT_ONCE = 16;
/** A list does not say when a token expires; no identity token lives longer than this. */
const TOKEN_LIFE_MAX_MS = 400 * 86_400_000;

/**
 * Only what is new since the last list is brought; an entry counts as brought once its gate has it on disk. Once more when no
 * request is decided by an older list any longer: a gate that did not exist yet has kept nothing, and may have begun since.
 *
 * @returns whether all of the list is with its gates
 */
export async function bringRevocations(sql: SqlStorage, deps: RevocationDeps): Promise<boolean> {
  sql.exec(
    `DROP TABLE IF EXISTS brought_revocations;
     CREATE TABLE IF NOT EXISTS told_revocations (
       jti TEXT PRIMARY KEY, told_at_ms INTEGER NOT NULL, is_for_good INTEGER NOT NULL) WITHOUT ROWID`,
  );
  const list = await deps.fetchList();
  if (!list.ok) {
    deps.log.warn("revocations.not_fetched", { reason: list.error.reason });
    return false;
  }
  const nowMs = deps.now();
  const told = new Map(
    sql
      .exec<{ jti: string; told_at_ms: number; is_for_good: number }>("SELECT * FROM told_revocations")
      .toArray()
      .map((row) => [row.jti, row]),
  );
  const isDue = (jti: string): boolean => {
    const row = told.get(jti);
    return row === undefined || (row.is_for_good === 0 && row.told_at_ms + deps.listMaxAgeMs <= nowMs);
  };
  const byAgent = Map.groupBy(
    list.value.revocations.filter(({ jti }) => isDue(jti)),
    ({ agentDid }) => agentDid,
  );
  let isAllBrought = true;
  const bring = async ([agentDid, revocations]: [string, { jti: string }[]]): Promise<void> => {
    try {
      await deps.endTokens(
        agentDid,
        revocations.map(({ jti }) => ({ jti, expMs: nowMs + TOKEN_LIFE_MAX_MS })),
      );
      for (const { jti } of revocations)
        sql.exec(
          `INSERT INTO told_revocations (jti, told_at_ms, is_for_good) VALUES (?, ?, 0)
           ON CONFLICT (jti) DO UPDATE SET is_for_good = 1`,
          jti,
          nowMs,
        );
    } catch (error) {
      isAllBrought = false;
      deps.log.error("revocations.gate_failed", { agentDid, ...errorFields(error) });
    }
  };
  const agents = [...byAgent];
  for (let at = 0; at < agents.length; at += GATES_AT_ONCE) {
    // oxlint-disable-next-line no-await-in-loop -- some gates at a time, so that a long list crowds nobody out
    await Promise.all(agents.slice(at, at + GATES_AT_ONCE).map(bring));
  }
  if (agents.length > 0) deps.log.info("revocations.brought", { agents: agents.length });
  const listed = new Set(list.value.revocations.map(({ jti }) => jti));
  for (const jti of told.keys()) if (!listed.has(jti)) sql.exec("DELETE FROM told_revocations WHERE jti = ?", jti);
  return isAllBrought;
}
