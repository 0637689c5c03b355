/** The agent's shared relay secret: one at a time, told apart by its generation. Contract §2. */
import { readNumber, readText, writeMeta } from "../database/meta.ts";

export type SharedSecret = ReturnType<typeof createSharedSecret>;

export function createSharedSecret(sql: SqlStorage) {
  let generation = readNumber(sql, "shared_generation") ?? 0;
  let sha256 = readText(sql, "shared_sha256");

  return {
    generation: (): number => generation,
    holds: (begun: number): boolean => sha256 !== null && begun === generation,
    /** The hash to compare a presented secret with; null while there is none. */
    sha256: (): string | null => sha256,

    /** Ends the secret so far and puts another in its place, or none. Returns the new generation. */
    replace(next: string | null): number {
      generation += 1;
      sha256 = next;
      writeMeta(sql, "shared_generation", generation);
      writeMeta(sql, "shared_sha256", next);
      return generation;
    },
  };
}
