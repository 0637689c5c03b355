/** Which nonces this agent's keys have used. The insert decides; a waking looks for the oldest alone. Contract §1, proof of possession. */
import { readNumber, writeMeta } from "../../database/meta.ts";

/** A nonce is remembered this much longer than its timestamp can be accepted. */
const KEPT_BEYOND_WINDOW_S = 60;
const PRUNE_BATCH_MAX = 5_000;
const PRUNE_EVERY_MS = 60_000;

export type NonceVerdict = "fresh" | "seen" | "outside-window" | "pruned";

export type Nonces = {
  /** Judges one proof and remembers nothing. */
  judge(keyX: string, nonce: string, timestampSeconds: number, nowMs: number): NonceVerdict;
  /** Judges one proof and, when it is fresh, remembers it. Part of the caller's transaction. */
  use(keyX: string, nonce: string, timestampSeconds: number, nowMs: number): NonceVerdict;
  /** When pruning is next worth waking for, or null. */
  nextDueMs(): number | null;
  /** Forgets what is past, some thousand rows a turn. */
  prune(nowMs: number): void;
};

/** @param skewMaxSeconds how far a timestamp may be off, by the gate's clock */
export function createNonces(sql: SqlStorage, skewMaxSeconds: number): Nonces {
  /** The highest timestamp ever pruned: at or below it nothing is accepted, whatever the settings become. */
  let prunedThrough = readNumber(sql, "nonces_pruned_through_s") ?? -1;
  let oldest = oldestOf(sql);
  let lastPrunedMs = 0;
  const keptSeconds = skewMaxSeconds + KEPT_BEYOND_WINDOW_S;

  const outside = (timestampSeconds: number, nowMs: number): "outside-window" | "pruned" | null => {
    const skewMs = Math.abs(nowMs - timestampSeconds * 1_000);
    if (skewMs > skewMaxSeconds * 1_000) return "outside-window";
    if (timestampSeconds <= prunedThrough) return "pruned";
    return null;
  };

  return {
    judge(keyX, nonce, timestampSeconds, nowMs) {
      const refused = outside(timestampSeconds, nowMs);
      if (refused !== null) return refused;
      return sql.exec("SELECT 1 FROM proof_nonces WHERE nonce = ? AND key = ?", nonce, keyX).toArray().length > 0
        ? "seen"
        : "fresh";
    },

    use(keyX, nonce, timestampSeconds, nowMs) {
      const refused = outside(timestampSeconds, nowMs);
      if (refused !== null) return refused;
      const { rowsWritten } = sql.exec(
        "INSERT INTO proof_nonces (nonce, key, timestamp_s) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        nonce,
        keyX,
        timestampSeconds,
      );
      if (rowsWritten === 0) return "seen";
      if (oldest === null || timestampSeconds < oldest) oldest = timestampSeconds;
      return "fresh";
    },

    nextDueMs: () =>
      oldest === null ? null : Math.max((oldest + keptSeconds) * 1_000 + 1_000, lastPrunedMs + PRUNE_EVERY_MS),

    prune(nowMs) {
      const cutoff = Math.ceil(nowMs / 1_000) - keptSeconds - 1;
      if (oldest === null || oldest > cutoff) return;
      // Past the window all of them are refused as too old: in which order they go does not matter.
      const gone = sql
        .exec<{ timestamp_s: number }>(
          `DELETE FROM proof_nonces WHERE (nonce, key) IN (
             SELECT nonce, key FROM proof_nonces WHERE timestamp_s <= ? LIMIT ?) RETURNING timestamp_s`,
          cutoff,
          PRUNE_BATCH_MAX,
        )
        .toArray();
      const highest = gone.reduce((most, { timestamp_s: seconds }) => Math.max(most, seconds), -1);
      if (highest > prunedThrough) {
        prunedThrough = highest;
        writeMeta(sql, "nonces_pruned_through_s", prunedThrough);
      }
      if (gone.length === PRUNE_BATCH_MAX) {
        lastPrunedMs = 0;
        return;
      }
      oldest = oldestOf(sql);
      lastPrunedMs = nowMs;
    },
  };
}

function oldestOf(sql: SqlStorage): number | null {
  return sql.exec<{ oldest: number | null }>("SELECT MIN(timestamp_s) AS oldest FROM proof_nonces").one().oldest;
}
