/** Brings the entries of a registry's revocation list to the gates of their agents, so that idle sockets end too. */
import { errorFields, type Log } from "../telemetry/log.ts";
import type { Result } from "../wire/result.ts";

export type RevocationDeps = {
  fetchList: () => Promise<
    Result<{ iat: number | null; revocations: readonly { jti: string; agentDid: string }[] }, { reason: string }>
  >;
  endTokens: (agentDid: string, tokens: { jti: string; expMs: number }[]) => Promise<void>;
  now: () => number;
  log: Log;
};

const GATES_AT_ONCE = 16;
/** A list does not say when a token expires; no identity token lives longer than this. */
const TOKEN_LIFE_MAX_MS = 400 * 86_400_000;

/**
 * Only what is new since the last list is brought; an entry counts as brought once its gate has it on disk.
 *
 * @returns whether all of the list is with its gates
 */
export async function bringRevocations(sql: SqlStorage, deps: RevocationDeps): Promise<boolean> {
  sql.exec(
    "CREATE TABLE IF NOT EXISTS brought_revocations (jti TEXT PRIMARY KEY, brought_at_ms INTEGER NOT NULL) WITHOUT ROWID",
  );
  const list = await deps.fetchList();
  if (!list.ok) {
    deps.log.warn("revocations.not_fetched", { reason: list.error.reason });
    return false;
  }
  const brought = new Set(
    sql
      .exec<{ jti: string }>("SELECT jti FROM brought_revocations")
      .toArray()
      .map(({ jti }) => jti),
  );
  const byAgent = Map.groupBy(
    list.value.revocations.filter(({ jti }) => !brought.has(jti)),
    ({ agentDid }) => agentDid,
  );
  const nowMs = deps.now();
  let isAllBrought = true;
  const bring = async ([agentDid, revocations]: [string, { jti: string }[]]): Promise<void> => {
    try {
      await deps.endTokens(
        agentDid,
        revocations.map(({ jti }) => ({ jti, expMs: nowMs + TOKEN_LIFE_MAX_MS })),
      );
      for (const { jti } of revocations)
        sql.exec("INSERT OR IGNORE INTO brought_revocations (jti, brought_at_ms) VALUES (?, ?)", jti, nowMs);
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
  for (const jti of brought) if (!listed.has(jti)) sql.exec("DELETE FROM brought_revocations WHERE jti = ?", jti);
  return isAllBrought;
}
