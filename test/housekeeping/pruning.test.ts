/** What housekeeping forgets, however much of it there is. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, test, vi } from "vitest";
import { PIECE_ROWS, PIECES_A_ROUND, pruneInPieces } from "../../src/housekeeping/pruning.ts";

const DAY_MS = 86_400_000;
const ROUND_ROWS = PIECE_ROWS * PIECES_A_ROUND;

describe("pruning in pieces", () => {
  test.each([
    ["nothing", 0, "done", 1],
    ["less than a piece", PIECE_ROWS - 1, "done", 1],
    ["a piece", PIECE_ROWS, "done", 2],
    ["some pieces and a little", 3 * PIECE_ROWS + 1, "done", 4],
    ["more than a round's share", ROUND_ROWS + 1, "more", PIECES_A_ROUND],
  ])("of %s", async (_what, rows, outcome, pieces) => {
    let left = rows;
    const prune = vi.fn(async (limit: number) => {
      const gone = Math.min(limit, left);
      left -= gone;
      return gone;
    });
    expect(await pruneInPieces(prune)).toBe(outcome);
    expect(prune).toHaveBeenCalledTimes(pieces);
    expect(left).toBe(Math.max(0, rows - ROUND_ROWS));
  });
});

describe("a round of housekeeping", () => {
  const harness = env.HOUSEKEEPING.getByName("pruning");
  /** Runs a round as the alarm does, and no other: how many tickets it leaves, and when the next one would come. */
  const round = () =>
    runInDurableObject(harness, async (object, ctx) => {
      await object.alarm();
      const inMs = ((await ctx.storage.getAlarm()) ?? Number.NaN) - Date.now();
      await ctx.storage.deleteAlarm();
      return { inMs, left: await env.DB.prepare("SELECT COUNT(*) AS n FROM pair_tickets").first<number>("n") };
    });
  const makeOldTickets = (count: number) =>
    env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
       INSERT INTO pair_tickets (ticket_hash, initiator_did, initiator_profile, created_at_ms, expires_at_ms)
       SELECT 'old-' || i, 'agent-' || i, '{}', ?2, ?2 FROM n`,
    )
      .bind(count, Date.now() - 2 * DAY_MS)
      .run();

  test("forgets what is over to the last row, and comes again soon where its share was not enough", async () => {
    await makeOldTickets(ROUND_ROWS + 5);
    const first = await round();
    expect(first.left).toBe(5);
    expect(first.inMs).toBeLessThanOrEqual(1_000);
    const second = await round();
    expect(second.left).toBe(0);
    expect(second.inMs).toBeGreaterThan(1_000);
  });
});
