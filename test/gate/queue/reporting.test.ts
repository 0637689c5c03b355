import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { aWhile, betweenGates, type Desk, eachNth, peer } from "../../support/between-gates.ts";
import { eventually, pass, queuedMessage, START_MS, stopClock } from "../../support/gate.ts";

beforeEach(() => stopClock());
afterEach(() => void vi.useRealTimers());

/** Lets a message of the peer's arrive, be pushed and end here, so that a report is pending. */
function endOne(queue: Desk["queue"], isAwaited = false): void {
  const envelope = JSON.stringify({ fromAgentDid: peer, ...(isAwaited ? { isAwaited } : {}) });
  const one = queuedMessage({ createdAtMs: START_MS, envelope });
  queue.receive(peer, [one], { isShut: false, refusal: () => null }, Date.now());
  queue.pump(() => [{ socketId: "s1", holder: "agent", lastFrameMs: Date.now() }], Date.now());
  queue.acknowledge(
    [{ deliveryId: one.deliveryId, holder: "agent", socketId: "s1", accepted: true, reason: null }],
    Date.now(),
  );
}

describe("a report", () => {
  test("that comes due while another is in progress goes by itself when that has been answered", async () => {
    await betweenGates(async ({ queue, commit, settlements }) => {
      await commit(() => endOne(queue));
      await eventually(() => expect(settlements).toHaveLength(1));
      await commit(() => endOne(queue));
      eachNth(settlements, 0).answer();
      // Nothing happens now but the clock.
      await eventually(() => {
        pass(50);
        expect(settlements).toHaveLength(2);
      });
      expect(eachNth(settlements, 1).args).toHaveLength(1);
      eachNth(settlements, 1).answer();
      await eventually(() => expect(queue.pendingReports()).toEqual([]));
    });
  });

  test("that a request waits for goes at once, also after one that was in progress", async () => {
    await betweenGates(async ({ queue, commit, settlements }) => {
      await commit(() => endOne(queue));
      await eventually(() => expect(settlements).toHaveLength(1));
      await commit(() => endOne(queue, true));
      expect(settlements).toHaveLength(1);
      // The clock stands still: nothing else falls due.
      eachNth(settlements, 0).answer();
      await eventually(() => expect(settlements).toHaveLength(2));
      eachNth(settlements, 1).answer();
      await aWhile();
      await commit(() => endOne(queue));
      await aWhile();
      expect(settlements).toHaveLength(2);
      await commit(() => endOne(queue, true));
      await eventually(() => expect(settlements).toHaveLength(3));
      expect(eachNth(settlements, 2).args).toHaveLength(2);
    });
  });

  test("that a request waits for leaves a gate alone that has just failed", async () => {
    await betweenGates(async ({ queue, commit, settlements }) => {
      await commit(() => endOne(queue, true));
      await eventually(() => expect(settlements).toHaveLength(1));
      eachNth(settlements, 0).fail(new Error("gone"));
      await aWhile();
      await commit(() => endOne(queue, true));
      await aWhile();
      expect(settlements).toHaveLength(1);
    });
  });

  test("in progress is pending all the same, so that the gate stays armed", async () => {
    await betweenGates(async ({ queue, reporting, commit, settlements }) => {
      expect(reporting.nextDueMs(Date.now())).toBeNull();
      await commit(() => endOne(queue));
      await eventually(() => expect(settlements).toHaveLength(1));
      expect(reporting.nextDueMs(Date.now())).not.toBeNull();
      eachNth(settlements, 0).answer();
      await eventually(() => expect(reporting.nextDueMs(Date.now())).toBeNull());
    });
  });

  test("that fails is made again, ever later, and lost never", async () => {
    await betweenGates(async ({ queue, commit, settlements, reporting }) => {
      await commit(() => endOne(queue));
      for (let attempt = 0; attempt < 3; attempt++) {
        // oxlint-disable-next-line no-await-in-loop -- one attempt after the other
        await eventually(() => expect(settlements).toHaveLength(attempt + 1));
        eachNth(settlements, attempt).fail(new Error("gone"));
        // oxlint-disable-next-line no-await-in-loop
        await eventually(() => expect(reporting.nextDueMs(Date.now()) ?? 0).toBeLessThan(Date.now() + 40_000));
        // oxlint-disable-next-line no-await-in-loop
        const waitMs = await eventually(() => {
          const due = (reporting.nextDueMs(Date.now()) ?? 0) - Date.now();
          expect(due).toBeGreaterThanOrEqual(800 * 2 ** attempt);
          expect(due).toBeLessThanOrEqual(1_200 * 2 ** attempt);
          return due;
        });
        pass(waitMs);
        // oxlint-disable-next-line no-await-in-loop
        await commit(() => {});
      }
      await eventually(() => expect(settlements).toHaveLength(4));
      expect(eachNth(settlements, 3).args).toEqual(eachNth(settlements, 0).args);
    });
  });
});
