/**
 * Whose authority is over. The one truth about it for everything of this agent: sockets and calls carry what they began
 * with, and are compared with what is written here, at that moment.
 */
import { readNumber, readText, writeMeta } from "../database/meta.ts";

/**
 * An end of the whole agent while it is under way. Several may be at once, a revocation and a re-key say: nothing is
 * accepted before the last of them has settled, and a revocation that is committed wins over whatever else settles.
 */
export type AgentEnd = {
  isInProgress(): boolean;
  /** Re-keyed: the agent goes on with the token made for it. */
  resume(): void;
  /** Refused, and nothing has changed. */
  abort(): void;
  /** Nobody knows: the agent stays ended until another end says more. */
  leaveUnknown(): void;
  /** Revoked. Also what had let it go on meanwhile is over. */
  commit(): void;
};

export type AgentAuthority = ReturnType<typeof createAgentAuthority>;

/** The agent's own credential: its identity tokens, ended one by one or all together. */
export function createAgentAuthority(sql: SqlStorage) {
  let epoch = readNumber(sql, "agent_epoch") ?? 0;
  /** What began below this epoch is over, whatever its token. */
  let endedBelow = readNumber(sql, "agent_ended_below") ?? 0;
  /** Why nothing of this agent is accepted at the moment; null while it is in order. */
  let ended = readText(sql, "agent_ended");
  /** What holds once no end is under way. */
  let lasting = ended;
  const underWay = new Set<object>();
  /** Revoked, and D1 has it: nothing lets this agent go on. */
  let isOver = readNumber(sql, "agent_over") === 1;
  const endedTokens = new Set(
    sql
      .exec<{ jti: string }>("SELECT jti FROM ended_tokens")
      .toArray()
      .map((row) => row.jti),
  );

  const raise = (): void => {
    epoch += 1;
    writeMeta(sql, "agent_epoch", epoch);
  };

  return {
    epoch: (): number => epoch,
    isEnded: (): boolean => ended !== null,
    /** Ended for good; until then, an agent that is ended may yet go on. */
    isOver: (): boolean => isOver,

    /** Whether an identity token may begin something new. */
    accepts: (jti: string): boolean => ended === null && !endedTokens.has(jti),

    /** Whether what began under an epoch and an identity token may go on. */
    holds: (begun: { epoch: number; jti: string }): boolean =>
      ended === null && begun.epoch >= endedBelow && !endedTokens.has(begun.jti),

    /** Ends every identity token at once, known or not. What it comes to is told by the returned handle. */
    endAll(reason: string): AgentEnd {
      raise();
      ended = reason;
      endedBelow = epoch;
      writeMeta(sql, "agent_ended", reason);
      writeMeta(sql, "agent_ended_below", endedBelow);
      const self = {};
      underWay.add(self);
      const settle = (outcome: string | null): void => {
        if (!underWay.delete(self)) return;
        if (!isOver) lasting = outcome;
        if (underWay.size > 0) return;
        ended = lasting;
        writeMeta(sql, "agent_ended", ended);
      };
      return {
        isInProgress: () => underWay.has(self),
        resume: () => settle(null),
        abort: () => settle(lasting),
        leaveUnknown: () => settle(reason),
        commit() {
          settle(reason);
          isOver = true;
          writeMeta(sql, "agent_over", 1);
          lasting = reason;
          if (underWay.size > 0 || ended !== null) return;
          ended = reason;
          writeMeta(sql, "agent_ended", reason);
        },
      };
    },

    /**
     * Ends single identity tokens. The epoch rises for the sake of the fence in D1; what runs under another token of the
     * agent goes on. Returns whether any of them was news.
     */
    endTokens(tokens: readonly { jti: string; expMs: number }[], reason: string): boolean {
      const news = tokens.filter(({ jti }) => !endedTokens.has(jti));
      for (const { jti, expMs } of news) {
        sql.exec(
          "INSERT INTO ended_tokens (jti, expires_at_ms, reason) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
          jti,
          expMs,
          reason,
        );
        endedTokens.add(jti);
      }
      if (news.length > 0 && ended === null) raise();
      return news.length > 0;
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
