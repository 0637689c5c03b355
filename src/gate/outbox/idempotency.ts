/** Which message an idempotency key stands for: of a sender towards one recipient, or all of one group, for a day. Contract §3. */
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Row } from "../storage/tables.ts";

const RETENTION_MS = 86_400_000;
const PRUNE_BATCH_MAX = 2_000;

/** What a sender gives beside a message. */
export type Idempotency = { readonly key: string; readonly bodySha256: string };

type Addressee = AgentDid | GroupId;

/** The keys of one sender. Each change is part of the caller's transaction. */
export type IdempotencyKeys = {
  /** @returns the id of the message that the key stands for, or null @throws GateRefusal where that had another body */
  find(to: Addressee, idempotency: Idempotency, nowMs: number): string | null;
  keep(to: Addressee, idempotency: Idempotency, deliveryId: string, nowMs: number): void;
  /** Forgets what is past, some thousand rows. @returns whether there may be more */
  prune(nowMs: number): boolean;
  /** When there is something to forget; null while there is nothing. */
  nextPruneMs(): number | null;
};

/** @returns the keys on a gate's own tables. */
export function createIdempotencyKeys(sql: SqlStorage): IdempotencyKeys {
  return {
    find(to, { key, bodySha256 }, nowMs) {
      const earlier = sql
        .exec<Omit<Row<"idempotency">, "key">>(
          "SELECT body_sha256, delivery_id, created_at_ms FROM idempotency WHERE key = ?",
          `${to} ${key}`,
        )
        .toArray()[0];
      if (earlier === undefined || earlier.created_at_ms <= nowMs - RETENTION_MS) return null;
      if (earlier.body_sha256 !== bodySha256) throw new GateRefusal("gate-idempotency-conflict");
      return earlier.delivery_id;
    },

    keep(to, { key, bodySha256 }, deliveryId, nowMs) {
      sql.exec(
        `INSERT INTO idempotency (key, body_sha256, delivery_id, created_at_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (key) DO UPDATE SET body_sha256 = excluded.body_sha256, delivery_id = excluded.delivery_id, created_at_ms = excluded.created_at_ms`,
        `${to} ${key}`,
        bodySha256,
        deliveryId,
        nowMs,
      );
    },

    prune: (nowMs) =>
      sql.exec(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE created_at_ms <= ? ORDER BY created_at_ms LIMIT ?)",
        nowMs - RETENTION_MS,
        PRUNE_BATCH_MAX,
      ).rowsWritten >= PRUNE_BATCH_MAX,

    nextPruneMs() {
      const { oldest } = sql
        .exec<{ oldest: number | null }>("SELECT MIN(created_at_ms) AS oldest FROM idempotency")
        .one();
      return oldest === null ? null : oldest + RETENTION_MS;
    },
  };
}
