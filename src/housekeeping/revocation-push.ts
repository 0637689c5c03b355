/**
 * Brings the entries of an external registry's revocation list to the gates of their agents, so that idle sockets end too: requests
 * and frames are refused by the list itself. Two jobs: one takes what a list says into this object's table, the other works the
 * table off, some gates a round, however many entries came at once.
 */
import { backoffMs } from "../resilience/backoff.ts";
import { type RoundLimits, type RoundReport, runRound } from "../resilience/round.ts";
import { errorFields, type Log } from "../telemetry/log.ts";

/** An entry of a list. */
export type Revocation = { readonly jti: string; readonly agentDid: string };

/** A token to be ended in its agent's gate, and when it expires at the latest. */
export type EndedToken = { jti: string; expMs: number };

export type PushDeps = {
  /** Ends tokens in the gate of their agent; on disk there before it answers. */
  readonly endTokens: (agentDid: string, tokens: EndedToken[]) => Promise<void>;
  /**
   * How old a list may be that a request is still decided by. Each entry is pushed a second time after that: a gate that did not
   * exist yet has kept nothing, and may have begun since under an older list.
   */
  readonly listMaxAgeMs: number;
  readonly now: () => number;
  readonly log: Log;
};

/** What of a list has to be pushed, in the object's own SQLite. */
export type RevocationPushes = {
  /** Takes a whole list: what is new is due at once, what is no longer listed is forgotten. */
  take(list: readonly Revocation[], nowMs: number): void;
  /** Pushes what is due. @returns what the round came to, counted in gates */
  push(limits: RoundLimits, deps: PushDeps): Promise<RoundReport>;
};

/** A list does not say when a token expires; no identity token lives longer than this. */
const TOKEN_LIFE_MAX_MS = 400 * 86_400_000;
const RETRY = { initialMs: 10_000, maxMs: 300_000, jitterRatio: 0.2 } as const;

/** One gate's share of a round. */
type Due = { agentDid: string; jtis: string[]; attempts: number };

/** @param sql of the object; the table is made where it is missing */
export function createRevocationPushes(sql: SqlStorage): RevocationPushes {
  // Pushed twice, and then kept only so that it is not taken for new; `due_at_ms` is NULL then.
  sql.exec(
    `DROP TABLE IF EXISTS brought_revocations;
     DROP TABLE IF EXISTS told_revocations;
     CREATE TABLE IF NOT EXISTS revocation_pushes (
       jti TEXT PRIMARY KEY, agent_did TEXT NOT NULL, due_at_ms INTEGER, pushes INTEGER NOT NULL, attempts INTEGER NOT NULL
     ) WITHOUT ROWID;
     CREATE INDEX IF NOT EXISTS revocation_pushes_due ON revocation_pushes (due_at_ms) WHERE due_at_ms IS NOT NULL`,
  );

  const dueAt = (nowMs: number, gates: number): Due[] =>
    sql
      .exec<{ agent_did: string; jtis: string; attempts: number }>(
        `SELECT agent_did, json_group_array(jti) AS jtis, MAX(attempts) AS attempts FROM revocation_pushes
         WHERE due_at_ms <= ? GROUP BY agent_did ORDER BY MIN(due_at_ms) LIMIT ?`,
        nowMs,
        gates,
      )
      .toArray()
      .map((row) => ({ agentDid: row.agent_did, jtis: JSON.parse(row.jtis) as string[], attempts: row.attempts }));

  const pushed = ({ jtis }: Due, againAtMs: number): void => {
    sql.exec(
      `UPDATE revocation_pushes SET due_at_ms = IIF(pushes = 0, ?, NULL), pushes = pushes + 1, attempts = 0
       WHERE jti IN (SELECT value FROM json_each(?))`,
      againAtMs,
      JSON.stringify(jtis),
    );
  };

  const postponed = ({ jtis }: Due, dueAtMs: number): void => {
    sql.exec(
      `UPDATE revocation_pushes SET due_at_ms = ?, attempts = attempts + 1
       WHERE jti IN (SELECT value FROM json_each(?))`,
      dueAtMs,
      JSON.stringify(jtis),
    );
  };

  return {
    take(list, nowMs) {
      for (const { jti, agentDid } of list) {
        sql.exec(
          `INSERT INTO revocation_pushes (jti, agent_did, due_at_ms, pushes, attempts) VALUES (?, ?, ?, 0, 0)
           ON CONFLICT DO NOTHING`,
          jti,
          agentDid,
          nowMs,
        );
      }
      const listed = new Set(list.map(({ jti }) => jti));
      for (const { jti } of sql.exec<{ jti: string }>("SELECT jti FROM revocation_pushes").toArray()) {
        if (!listed.has(jti)) sql.exec("DELETE FROM revocation_pushes WHERE jti = ?", jti);
      }
    },

    async push(limits, { endTokens, listMaxAgeMs, now, log }) {
      const due = dueAt(now(), limits.calls + 1);
      const report = await runRound(due, limits, {
        callsPerItem: 1,
        now,
        async run(each, ask) {
          const nowMs = now();
          const expMs = nowMs + TOKEN_LIFE_MAX_MS;
          const tokens = each.jtis.map((jti) => ({ jti, expMs }));
          await ask(each.agentDid, () => endTokens(each.agentDid, tokens));
          pushed(each, nowMs + listMaxAgeMs);
        },
        async failed(each, error) {
          log.error("revocations.gate_failed", { agentDid: each.agentDid, ...errorFields(error) });
          postponed(each, now() + backoffMs(each.attempts + 1, RETRY, Math.random()));
        },
      });
      if (report.done > 0) log.info("revocations.brought", { agents: report.done });
      return report;
    },
  };
}
