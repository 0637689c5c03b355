/**
 * Stage 4, replay: a nonce that this isolate has seen the gate take, or refuse as replayed, is refused here without a hop.
 * The gate alone decides; forgetting here costs a hop and nothing else.
 */
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

export type ReplayMemory = {
  /** @returns whether the gate has had this nonce of this key */
  has(keyX: string, nonce: string): boolean;
  /** Called after the gate's answer: the nonce is taken, now or before. */
  remember(keyX: string, nonce: string): void;
  size(): number;
};

/** Two generations of this many; at 256 characters of nonce and 43 of key the worst is about 10 MiB. */
const NONCES_PER_GENERATION = 16_384;

/** Bounded by generations: when the young one is full the old one goes, so that nothing is moved or aged one by one. */
export function createReplayMemory(maxPerGeneration: number = NONCES_PER_GENERATION): ReplayMemory {
  let young = new Set<string>();
  let old = new Set<string>();
  return {
    has(keyX, nonce) {
      const seen = entry(keyX, nonce);
      return young.has(seen) || old.has(seen);
    },
    remember(keyX, nonce) {
      young.add(entry(keyX, nonce));
      if (young.size < maxPerGeneration) return;
      old = young;
      young = new Set();
    },
    size: () => young.size + old.size,
  };
}

export function checkReplay(memory: ReplayMemory, keyX: string, nonce: string): Result<null, Refusal> {
  return memory.has(keyX, nonce) ? err(refusal("nonce-seen-here")) : ok(null);
}

/** A key is base64url, so the text before the first space is the key and nothing else. */
function entry(keyX: string, nonce: string): string {
  return `${keyX} ${nonce}`;
}
