/** Forgetting in pieces: a statement that has too much to delete would hold everybody up, or end at the database's own limit. */
import type { JobOutcome } from "./schedule.ts";

/** Rows of each kind that one statement deletes at most. */
export const PIECE_ROWS = 1_000;
/** Pieces of one job in a round; what is then left is for the next one, which comes soon. */
export const PIECES_A_ROUND = 20;

/**
 * Prunes until nothing is left, or the round's share is done.
 *
 * @param prune deletes at most so many rows of each kind, and says how many went of the kind that lost most
 */
export async function pruneInPieces(prune: (limit: number) => Promise<number>): Promise<JobOutcome> {
  for (let piece = 0; piece < PIECES_A_ROUND; piece += 1) {
    // oxlint-disable-next-line no-await-in-loop -- piece after piece, so that requests come in between
    if ((await prune(PIECE_ROWS)) < PIECE_ROWS) return "done";
  }
  return "more";
}
