/**
 * Whose authority is over. The one truth about it for everything of this agent: sockets and calls carry what they began
 * with, and are compared with what is written here, at that moment.
 */
import { readNumber, readText, writeMeta } from "../database/meta.ts";

/**
 * An end of the whole agent while it is in progress. Several may be at once, a revocation and a re-key say: nothing is
 * accepted before the last of them has settled, and a revocation that is committed wins over whatever else settles.
 */
export type AgentEnd = {
  isInProgress(): boolean;
  /** Re-keyed: the agent goes on with the token made for it. */
  resume(): void;
  /** Refused, and nothing has changed. */
  abort(): void;
  /** The outcome is unknown: the agent stays ended until another end says more. */
  leaveUnknown(): void;
  /** Revoked. Also what had let it go on meanwhile is over. */
  commit(): void;
};

/** The agent's own credential: its identity tokens, ended one by one or all together. */
export type AgentAuthority = {
  /** Rises with each end; its fencing token in D1 follows it. */
  epoch(): number;
  isEnded(): boolean;
  /** Ended permanently; until then, an agent that is ended may yet go on. */
  isOver(): boolean;
  /** Whether an identity token may begin something new. */
  accepts(jti: string): boolean;
  /** Whether what began under an epoch and an identity token may go on. */
  holds(begun: { epoch: number; jti: string }): boolean;
  /** Ends every identity token at once, known or not. @returns the handle that says what comes of it */
  endAll(reason: string): AgentEnd;
  /**
   * Ends single identity tokens. The epoch rises for the sake of the fence in D1; what runs under another token of the agent
   * goes on.
   *
   * @returns whether any of them had not been ended before
   */
  endTokens(tokens: readonly { jti: string; expMs: number }[], reason: string): boolean;
  /** Forgets tokens that have expired by themselves. */
  prune(nowMs: number): void;
};

/** @param sql the gate's own database; memory mirrors it */
export function createAgentAuthority(sql: SqlStorage): AgentAuthority {
  let epoch = readNumber(sql, "agent_epoch") ?? 0;
  /** What began below this epoch is over, whatever its token. */
  let endedBelow = readNumber(sql, "agent_ended_below") ?? 0;
  /** Why nothing of this agent is accepted at the moment; null while it is active. */
  let ended = readText(sql, "agent_ended");
  /** What holds once no end is in progress. */
  let lasting = ended;
  const inProgress = new Set<object>();
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
    epoch: () => epoch,
    isEnded: () => ended !== null,
    isOver: () => isOver,
    accepts: (jti) => ended === null && !endedTokens.has(jti),
    holds: (begun) => ended === null && begun.epoch >= endedBelow && !endedTokens.has(begun.jti),

    endAll(reason) {
      raise();
      ended = reason;
      endedBelow = epoch;
      writeMeta(sql, "agent_ended", reason);
      writeMeta(sql, "agent_ended_below", endedBelow);
      const self = {};
      inProgress.add(self);
      const settle = (outcome: string | null): void => {
        if (!inProgress.delete(self)) return;
        if (!isOver) lasting = outcome;
        if (inProgress.size > 0) return;
        ended = lasting;
        writeMeta(sql, "agent_ended", ended);
      };
      return {
        isInProgress: () => inProgress.has(self),
        resume: () => settle(null),
        abort: () => settle(lasting),
        leaveUnknown: () => settle(reason),
        commit() {
          settle(reason);
          isOver = true;
          writeMeta(sql, "agent_over", 1);
          lasting = reason;
          if (inProgress.size > 0 || ended !== null) return;
          ended = reason;
          writeMeta(sql, "agent_ended", reason);
        },
      };
    },

    endTokens(tokens, reason) {
      const fresh = tokens.filter(({ jti }) => !endedTokens.has(jti));
      for (const { jti, expMs } of fresh) {
        sql.exec(
          "INSERT INTO ended_tokens (jti, expires_at_ms, reason) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
          jti,
          expMs,
          reason,
        );
        endedTokens.add(jti);
      }
      if (fresh.length > 0 && ended === null) raise();
      return fresh.length > 0;
    },

    prune(nowMs) {
      for (const { jti } of sql
        .exec<{ jti: string }>("DELETE FROM ended_tokens WHERE expires_at_ms < ? RETURNING jti", nowMs)
        .toArray()) {
        endedTokens.delete(jti);
      }
    },
  };
}
