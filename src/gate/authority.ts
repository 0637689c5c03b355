/**
 * Whose authority is over. The one truth about it for everything of this agent: sockets and calls carry what they began
 * with, and are compared with what is written here, at that moment.
 */
import { RELAY_CLOSE_REASON } from "../wire/relay-close.ts";
import type { AgentPrincipal } from "./admission.ts";
import { readMeta, writeMeta } from "./schema.ts";

/** What a socket or a call remembers of the authority it began under. */
export type AgentRef = { kind: "agent"; epoch: number; jti: string; expMs: number; principal: AgentPrincipal };

export type AgentAuthority = ReturnType<typeof createAgentAuthority>;

/** The agent's own credential: its identity tokens, ended one by one or all together. */
export function createAgentAuthority(sql: SqlStorage) {
  let epoch = readMeta<number>(sql, "agent_epoch") ?? 0;
  /** Why nothing of this agent is accepted at the moment; null while it is in order. */
  let ended = readMeta<string>(sql, "agent_ended");
  const endedTokens = new Set(
    sql.exec<{ jti: string }>("SELECT jti FROM ended_tokens").toArray().map((row) => row.jti),
  );

  const raise = (): void => {
    epoch += 1;
    writeMeta(sql, "agent_epoch", epoch);
  };

  return {
    epoch: (): number => epoch,
    isEnded: (): boolean => ended !== null,

    /** Whether an identity token may begin something new. */
    accepts: (jti: string): boolean => ended === null && !endedTokens.has(jti),

    /** Why something that began under an authority may not go on, or null. */
    whyEnded(ref: AgentRef, nowMs: number): string | null {
      if (ended !== null || ref.epoch !== epoch || endedTokens.has(ref.jti)) return RELAY_CLOSE_REASON.agentRevoked;
      return ref.expMs <= nowMs ? RELAY_CLOSE_REASON.credentialExpired : null;
    },

    /** Ends every identity token at once, known or not. */
    endAll(reason: string): void {
      raise();
      ended = reason;
      writeMeta(sql, "agent_ended", reason);
    },

    /** Ends single identity tokens, and with them what runs under the epoch so far. Returns whether any of them was news. */
    endTokens(tokens: readonly { jti: string; expMs: number }[], reason: string): boolean {
      const news = tokens.filter(({ jti }) => !endedTokens.has(jti));
      for (const { jti, expMs } of news) {
        sql.exec("INSERT INTO ended_tokens (jti, expires_at_ms, reason) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", jti, expMs, reason);
        endedTokens.add(jti);
      }
      if (news.length > 0 && ended === null) raise();
      return news.length > 0;
    },

    /** After a re-key: what was ended stays ended one by one, and the agent goes on with its new token. */
    resume(): void {
      ended = null;
      sql.exec("DELETE FROM meta WHERE name = 'agent_ended'");
    },

    /** Forgets tokens that have expired by themselves. */
    prune(nowMs: number): void {
      for (const { jti } of sql
        .exec<{ jti: string }>("DELETE FROM ended_tokens WHERE expires_at_ms < ? RETURNING jti", nowMs)
        .toArray()) {
        endedTokens.delete(jti);
      }
    },
  };
}
