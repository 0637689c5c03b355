import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { addSnapshot, createTally, seriesOf } from "../../src/telemetry/metric-series.ts";

describe("a series", () => {
  test("carries its labels as they stand in the exposition", () => {
    expect(seriesOf("sallyport_requests", { route: "/v1/deliveries/:deliveryId", method: "GET", status: "200" })).toBe(
      'sallyport_requests{route="/v1/deliveries/:deliveryId",method="GET",status="200"}',
    );
  });

  test.each([
    ["an agent's DID", "did:cdi:registry.example.com:agent:01J00000000000000000000000"],
    ["an id", "request-01J00000000000000000000000"],
    ["a token", `spa_${"x".repeat(80)}`],
    ["a quote", 'a"b'],
    ["a line end", "a\nb"],
    ["nothing", ""],
  ])("never carries %s: it counts as other", (_, route) => {
    expect(seriesOf("sallyport_requests", { route })).toBe('sallyport_requests{route="other"}');
  });

  property.prop([fc.string()])("is text that no value can break out of", (value) => {
    expect(seriesOf("sallyport_requests", { route: value })).toMatch(
      /^sallyport_requests\{route="[A-Za-z0-9_./:*-]{1,64}"\}$/,
    );
  });
});

describe("a tally", () => {
  test("keeps no more series than its bound, and counts those it refused", () => {
    const tally = createTally(2);
    for (const status of ["200", "201", "202", "200", "203"]) tally.count("sallyport_requests", { status });
    expect(tally.take().counters).toEqual([
      ['sallyport_requests{status="200"}', 2],
      ['sallyport_requests{status="201"}', 1],
      ["sallyport_metric_series_refused", 2],
    ]);
  });

  test("puts a value that is a bound into the bucket of that bound", () => {
    const tally = createTally();
    for (const seconds of [0, 0.001, 0.0011, 10, 10.1])
      tally.observe("sallyport_stage_duration_seconds", { stage: "token" }, seconds);
    const [[, distribution] = []] = tally.take().histograms;
    expect(distribution?.counts).toEqual([2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    expect(distribution?.sum).toBeCloseTo(20.1021);
  });

  const batches = fc.array(
    fc.array(fc.record({ status: fc.constantFrom("200", "202", "503"), ms: fc.nat(20_000) }), { maxLength: 20 }),
    { maxLength: 5 },
  );
  property.prop([batches])("loses nothing by being handed over in batches", (all) => {
    const [inBatches, atOnce] = [createTally(), createTally()];
    let sum = createTally().take();
    for (const batch of all) {
      for (const { status, ms } of batch) {
        for (const tally of [inBatches, atOnce]) {
          tally.count("sallyport_requests", { status });
          tally.observe("sallyport_request_duration_seconds", { route: status }, ms);
        }
      }
      sum = addSnapshot(sum, inBatches.take());
    }
    const whole = atOnce.take();
    expect(Object.fromEntries(sum.counters)).toEqual(Object.fromEntries(whole.counters));
    expect(Object.fromEntries(sum.histograms)).toEqual(Object.fromEntries(whole.histograms));
  });
});
