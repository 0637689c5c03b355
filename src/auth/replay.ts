/**
 * Stage 4, replay: a nonce that this isolate has seen the gate take, or refuse as replayed, is refused here without a hop.
 * The gate alone decides; forgetting here costs a hop and nothing else.
 */
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

export type ReplayMemory = {
  /** @returns whether the gate has had this nonce of this key */
  has(keyX: string, nonce: string, nowMs: number): boolean;
  /** Called after the gate's answer: the nonce is taken, now or before. */
  remember(keyX: string, nonce: string, nowMs: number): void;
  size(): number;
};

/** Two generations of this many; at 256 characters of nonce and 43 of key the worst is about 10 MiB. */
const NONCES_PER_GENERATION = 16_384;
/** How much longer than its timestamp counts the gate remembers a nonce, contract §1. */
const NONCE_MARGIN_MS = 60_000;

/** @returns how long a nonce may matter, in milliseconds: one from as far ahead as a clock may be counts until twice that */
export function nonceAgeMs(skewMaxSeconds: number): number {
  return 2 * skewMaxSeconds * 1_000 + NONCE_MARGIN_MS;
}

/**
 * Bounded by generations in count and in age: when the young one is full or old enough, the old one goes, so that nothing is
 * moved or aged one by one. A nonce is kept for `ageMs` to twice that, unless so many others come.
 */
export function createReplayMemory(ageMs: number, maxPerGeneration: number = NONCES_PER_GENERATION): ReplayMemory {
  let young = new Set<string>();
  let old = new Set<string>();
  let turnedAtMs = 0;

  function turn(nowMs: number): void {
    // A clock that was set back begins a new age.
    const isAged = nowMs < turnedAtMs || nowMs - turnedAtMs >= ageMs;
    if (!isAged && young.size < maxPerGeneration) return;
    old = nowMs - turnedAtMs >= 2 * ageMs ? new Set() : young;
    young = new Set();
    turnedAtMs = nowMs;
  }

  return {
    has(keyX, nonce, nowMs) {
      turn(nowMs);
      const seen = entry(keyX, nonce);
      return young.has(seen) || old.has(seen);
    },
    remember(keyX, nonce, nowMs) {
      turn(nowMs);
      young.add(entry(keyX, nonce));
    },
    size: () => young.size + old.size,
  };
}

/** @returns a refusal where this isolate has seen the nonce of this key (base64url) a moment ago; the gate decides in any case */
export function checkReplay(memory: ReplayMemory, keyX: string, nonce: string, nowMs: number): Result<null, Refusal> {
  return memory.has(keyX, nonce, nowMs) ? err(refusal("nonce-seen-here")) : ok(null);
}

/** A key is base64url, so the text before the first space is the key and nothing else. */
function entry(keyX: string, nonce: string): string {
  return `${keyX} ${nonce}`;
}
