/** The agent's shared relay secret: one at a time, told apart by its generation. Contract §2. */
import { readNumber, readText, writeMeta } from "../database/meta.ts";

/** What changes the secret is part of the caller's transaction. */
export type SharedSecret = {
  /** Rises with each replacement. */
  generation(): number;
  /** Whether what began under a generation may go on. */
  holds(begun: number): boolean;
  /** The hash to compare a presented secret with; null while there is none. */
  sha256(): string | null;
  /**
   * Whether the secret in force was handed out to an authority or to what descends from it; one of before that was recorded
   * may have been handed out to anybody.
   *
   * @param authority its name, as its fencing token carries it
   */
  isKnownTo(authority: string): boolean;
  /**
   * Ends the secret so far and puts another in its place, or none.
   *
   * @param next the hash of the next one
   * @param knownTo the authority it is handed out to, and all that this one descends from
   * @returns the new generation
   */
  replace(next: string | null, knownTo: readonly string[]): number;
};

/** @param sql the gate's own database; memory mirrors it */
export function createSharedSecret(sql: SqlStorage): SharedSecret {
  let generation = readNumber(sql, "shared_generation") ?? 0;
  let sha256 = readText(sql, "shared_sha256");
  const recorded = readText(sql, "shared_known_to");
  let knownTo = recorded === null ? null : (JSON.parse(recorded) as readonly string[]);

  return {
    generation: () => generation,
    holds: (begun) => sha256 !== null && begun === generation,
    sha256: () => sha256,
    isKnownTo: (authority) => sha256 !== null && (knownTo === null || knownTo.includes(authority)),
    replace(next, to) {
      generation += 1;
      sha256 = next;
      knownTo = to;
      writeMeta(sql, "shared_generation", generation);
      writeMeta(sql, "shared_sha256", next);
      writeMeta(sql, "shared_known_to", JSON.stringify(to));
      return generation;
    },
  };
}
