import { describe, expect, test } from "vitest";
import { type Batch, createMeter } from "../../src/telemetry/meter.ts";

function newMeter() {
  const state = { nowMs: 0, ids: 0, late: 0, paused: [] as (() => void)[], background: [] as Promise<unknown>[] };
  const meter = createMeter({
    now: () => state.nowMs,
    pause: () => new Promise((resolve) => void state.paused.push(resolve)),
    newId: () => `batch-${(state.ids += 1)}`,
    onLate: () => void (state.late += 1),
  });
  /** An aggregate that takes each batch once, and may fail before or after it has. */
  const taken = new Map<string, Batch>();
  const aggregate = { fails: null as "before" | "after" | null, calls: 0, taken };
  const send = async (batch: Batch): Promise<void> => {
    aggregate.calls += 1;
    if (aggregate.fails === "before") throw new Error("unreachable");
    if (!taken.has(batch.id)) taken.set(batch.id, batch);
    if (aggregate.fails === "after") throw new Error("the answer was lost");
  };
  const total = (): number =>
    [...taken.values()].flatMap(({ counters }) => counters).reduce((sum, [, n]) => sum + n, 0);
  const soon = (): void => meter.flushSoon((work) => void state.background.push(work), send);
  const settle = async (): Promise<void> => {
    for (const resume of state.paused.splice(0)) resume();
    await Promise.all(state.background.splice(0));
  };
  return { meter, state, aggregate, send, total, soon, settle };
}

describe("the numbers of an isolate", () => {
  test("leave together, once, however many requests ask for it", async () => {
    const { meter, aggregate, total, soon, settle, state } = newMeter();
    for (let n = 0; n < 100; n++) {
      meter.count("sallyport_requests", { status: "202" });
      soon();
    }
    expect(state.background).toHaveLength(1);
    expect(aggregate.calls).toBe(0);
    await settle();
    expect([aggregate.calls, total()]).toEqual([1, 100]);
    soon();
    expect(state.background).toHaveLength(0);
  });

  test.each(["before", "after"] as const)("count once though the aggregate failed %s it took them", async (when) => {
    const { meter, aggregate, total, soon, settle, state } = newMeter();
    meter.count("sallyport_requests", {}, 3);
    aggregate.fails = when;
    soon();
    await settle();
    expect(state.late).toBe(1);
    aggregate.fails = null;
    meter.count("sallyport_requests", {}, 4);
    soon();
    await settle();
    expect(total()).toBe(7);
  });

  test("wait for another request when the one that carried them was killed", async () => {
    const { meter, total, soon, settle, state } = newMeter();
    meter.count("sallyport_requests", {});
    soon();
    state.paused.length = 0;
    state.background.length = 0;
    soon();
    expect(state.background).toHaveLength(0);
    state.nowMs += 30_000;
    soon();
    await settle();
    expect(total()).toBe(1);
  });

  test("are given up, and that is counted, when nobody takes them for long", async () => {
    const { meter, aggregate, soon, settle, send } = newMeter();
    meter.count("sallyport_requests", {}, 5);
    aggregate.fails = "before";
    for (let attempt = 0; attempt < 20; attempt++) {
      soon();
      await settle();
    }
    aggregate.fails = null;
    await meter.flush(send);
    expect([...aggregate.taken.values()].flatMap(({ counters }) => counters)).toEqual([
      ["sallyport_metric_batches_lost", 1],
    ]);
  });

  test("are not taken at all when they are turned off", async () => {
    const { meter, state, aggregate, soon, send } = newMeter();
    meter.turn(false);
    meter.count("sallyport_requests", {});
    meter.observe("sallyport_stage_duration_seconds", { stage: "token" }, 1);
    meter.gauge("task_fgac_drift", {}, 1);
    soon();
    await meter.flush(send);
    expect([state.background.length, aggregate.calls]).toEqual([0, 0]);
  });
});
