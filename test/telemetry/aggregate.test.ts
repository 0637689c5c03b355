import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import type { Batch } from "../../src/telemetry/meter.ts";
import { createTally, type Snapshot } from "../../src/telemetry/metric-series.ts";

const aggregateOf = (name: string) => {
  const stub = env.HOUSEKEEPING.getByName(name);
  return {
    stub,
    add: (batch: Batch) => stub.addNumbers(JSON.stringify(batch)),
    read: async () => JSON.parse(await stub.numbers()) as Snapshot,
  };
};

function batchOf(id: string, n: number): Batch {
  const tally = createTally();
  tally.count("sallyport_requests", { route: "/hooks/agent", status: "202" }, n);
  tally.observe("sallyport_request_duration_seconds", { route: "/hooks/agent" }, 0.003);
  tally.gauge("task_fgac_drift", {}, n);
  return { id, ...tally.take() };
}

test("numbers of many isolates add up, outlive the object, and a batch that comes twice counts once", async () => {
  const { add, read, stub } = aggregateOf("sum");
  await add(batchOf("one", 3));
  await add(batchOf("two", 4));
  await add(batchOf("two", 4));
  await evictDurableObject(stub);
  await add(batchOf("one", 3));
  const { counters, gauges, histograms } = await read();
  expect(counters).toEqual([['sallyport_requests{route="/hooks/agent",status="202"}', 7]]);
  expect(gauges).toEqual([["task_fgac_drift", 4]]);
  expect(histograms.map(([, { counts, sum }]) => [counts.reduce((a, b) => a + b, 0), sum])).toEqual([[2, 0.006]]);
});

test("a histogram that an older version kept with other bounds begins anew", async () => {
  const { add, read } = aggregateOf("bounds");
  const series = 'sallyport_stage_duration_seconds{stage="token"}';
  await add({ id: "old", counters: [], gauges: [], histograms: [[series, { counts: [9, 9], sum: 9 }]] });
  await add({ id: "new", counters: [], gauges: [], histograms: [[series, { counts: [1, 0, 1], sum: 2 }]] });
  expect((await read()).histograms).toEqual([[series, { counts: [1, 0, 1], sum: 2 }]]);
});

test("series beyond the bound are not kept, and counted", async () => {
  const { add, read } = aggregateOf("many");
  const counters = Array.from({ length: 4_100 }, (_, n): [string, number] => [`sallyport_requests{route="/${n}"}`, 1]);
  await add({ id: "many", counters, gauges: [], histograms: [] });
  const all = (await read()).counters;
  expect(all.length).toBe(4_097);
  expect(all).toContainEqual(["sallyport_metric_series_refused", 4]);
});
