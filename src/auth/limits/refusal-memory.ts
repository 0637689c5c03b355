/**
 * What trust and access have refused a moment ago. Neither burns a nonce, so one signed request could be sent again and again,
 * each time for a read of the database or a call of the registry, and the gate that counts an agent's requests would see none
 * of them. Here the same request is refused again without a look, and a key that is refused too often waits.
 */
import { type Refusal, refusal } from "../reasons.ts";

export type RefusalMemory = {
  /**
   * Asked once a request's proof has verified, before its trust and access are looked up.
   *
   * @returns why it is refused without a look; null where it may be looked at
   */
  recall(keyX: string, nonce: string, nowMs: number): Refusal | null;
  /** Records a refusal that a look has cost. */
  remember(keyX: string, nonce: string, refused: Refusal, nowMs: number): void;
};

const WINDOW_MS = 60_000;
/** The same request gets the same answer for so long: a pairing that comes meanwhile is seen by the next that is signed. */
const SAME_ANSWER_MS = 10_000;
/** Keys, and requests, that are remembered at most; the oldest go first. */
const ENTRIES_MAX = 8_192;

type Count = { sinceMs: number; count: number };
type RefusedRequest = Count & { refused: Refusal; refusedAtMs: number };

/** @param limit refusals of a key, and repeats of one request, in a minute: `RATE_LIMIT_PER_AGENT`; 0 for no limit */
export function createRefusalMemory(limit: number): RefusalMemory {
  const keys = new Map<string, Count>();
  const requests = new Map<string, RefusedRequest>();

  return {
    recall(keyX, nonce, nowMs) {
      const key = current(keys, keyX, nowMs);
      const request = current(requests, `${keyX} ${nonce}`, nowMs);
      if (request !== undefined) {
        // Repeats count for this request alone: whoever has recorded one must not be able to silence its signer.
        request.count += 1;
        if (limit > 0 && request.count > limit) return tooOften(request, nowMs);
        if (nowMs - request.refusedAtMs < SAME_ANSWER_MS) return request.refused;
      }
      return key !== undefined && limit > 0 && key.count >= limit ? tooOften(key, nowMs) : null;
    },

    remember(keyX, nonce, refused, nowMs) {
      const key = current(keys, keyX, nowMs) ?? put(keys, keyX, { sinceMs: nowMs, count: 0 });
      const name = `${keyX} ${nonce}`;
      const known = current(requests, name, nowMs);
      if (known === undefined) {
        key.count += 1;
        put(requests, name, { sinceMs: nowMs, count: 1, refused, refusedAtMs: nowMs });
      } else {
        known.refused = refused;
        known.refusedAtMs = nowMs;
      }
    },
  };
}

function tooOften({ sinceMs }: Count, nowMs: number): Refusal {
  return { ...refusal("refused-too-often"), retryAfterMs: Math.max(1, sinceMs + WINDOW_MS - nowMs) };
}

/** @returns the entry of this minute; one of an older minute, or of a clock that was set back since, is over */
function current<T extends Count>(entries: Map<string, T>, name: string, nowMs: number): T | undefined {
  const entry = entries.get(name);
  if (entry === undefined || (nowMs >= entry.sinceMs && nowMs - entry.sinceMs < WINDOW_MS)) return entry;
  entries.delete(name);
  return undefined;
}

function put<T>(entries: Map<string, T>, name: string, entry: T): T {
  entries.set(name, entry);
  const oldest = entries.keys().next().value;
  if (entries.size > ENTRIES_MAX && oldest !== undefined) entries.delete(oldest);
  return entry;
}
