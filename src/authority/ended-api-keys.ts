/**
 * API keys as the agent's gate sees them. The keys themselves stand in D1, where each call reads them anew; here stands
 * which of them are over, so that what a call read a moment ago ends in the turn that ends its key, and so does what descends
 * from it.
 */
import { readNumber, writeMeta } from "../database/meta.ts";

/** How long an end is remembered after the key's row has gone: far longer than any look-up that still saw the row. */
const REMEMBERED_MS = 3_600_000;

/** What is read of the authority of something that began under a key. */
export type ApiKeyRef = { principal: { apiKeyId: string }; generation: number; mayStillReply?: true };

/** The ends of one agent's keys. What changes them is part of the caller's transaction. */
export type ApiKeys = {
  /** What everything that is issued now is issued under; the end of everything of the agent raises it. */
  generation(): number;
  /** Whether what began under a key may go on. `mayStillReply`: the answer to the call by which it ended itself. */
  holds(ref: ApiKeyRef): boolean;
  /** Whether a key has been ended, as far as that is remembered. */
  isEnded(apiKeyId: string): boolean;
  /** Ends a key; doing it twice changes nothing. */
  end(apiKeyId: string): void;
  /** The key's row has gone from D1, so that its end need not be remembered for ever. */
  gone(apiKeyId: string, nowMs: number): void;
  /** Ends every key made so far. */
  endAll(): void;
  /** Forgets ends that nothing can ask for any more. */
  prune(nowMs: number): void;
};

/** @param sql the gate's own database; memory mirrors it */
export function createApiKeys(sql: SqlStorage): ApiKeys {
  let generation = readNumber(sql, "api_key_generation") ?? 0;
  const ended = new Set(
    sql
      .exec<{ api_key_id: string }>("SELECT api_key_id FROM ended_api_keys")
      .toArray()
      .map((row) => row.api_key_id),
  );

  return {
    generation: () => generation,
    holds: (ref) => ref.generation === generation && (!ended.has(ref.principal.apiKeyId) || ref.mayStillReply === true),
    isEnded: (apiKeyId) => ended.has(apiKeyId),
    end(apiKeyId) {
      // Ended again, it is remembered anew: its row is there still.
      sql.exec(
        "INSERT INTO ended_api_keys (api_key_id) VALUES (?) ON CONFLICT (api_key_id) DO UPDATE SET forget_at_ms = NULL",
        apiKeyId,
      );
      ended.add(apiKeyId);
    },
    gone(apiKeyId, nowMs) {
      sql.exec("UPDATE ended_api_keys SET forget_at_ms = ? WHERE api_key_id = ?", nowMs + REMEMBERED_MS, apiKeyId);
    },
    endAll() {
      generation += 1;
      writeMeta(sql, "api_key_generation", generation);
    },
    prune(nowMs) {
      for (const row of sql
        .exec<{ api_key_id: string }>("DELETE FROM ended_api_keys WHERE forget_at_ms < ? RETURNING api_key_id", nowMs)
        .toArray()) {
        ended.delete(row.api_key_id);
      }
    },
  };
}
