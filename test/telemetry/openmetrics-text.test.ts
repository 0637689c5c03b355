import { describe, expect, test } from "vitest";
import { METRICS, type MetricDefinition } from "../../src/telemetry/metric-definitions.ts";
import { openMetricsText } from "../../src/telemetry/openmetrics-text.ts";
import { createTally } from "../../src/telemetry/metric-series.ts";
import { parseOpenMetrics, valueOf } from "./open-metrics-parser.ts";
import document from "../../docs/metrics.md?raw";

type AnyTally = Record<
  "count" | "gauge" | "observe",
  (name: string, labels: Record<string, string>, value: number) => void
>;

/** Every metric of the table with every one of its labels. */
function everything() {
  const tally = createTally();
  const any = tally as unknown as AnyTally;
  for (const [name, { kind, labels }] of Object.entries(METRICS)) {
    const verb = { counter: "count", gauge: "gauge", histogram: "observe" } as const;
    for (const value of ["one", "two"])
      any[verb[kind]](name, Object.fromEntries(labels.map((label) => [label, value])), 1.5);
  }
  return tally.take();
}

describe("the exposition", () => {
  test("is OpenMetrics text by a strict reader, every family of the table in it", () => {
    const families = parseOpenMetrics(openMetricsText(everything()));
    expect([...families.keys()].toSorted()).toEqual(Object.keys(METRICS).toSorted());
    for (const [name, definition] of Object.entries(METRICS) as [string, MetricDefinition][]) {
      const family = families.get(name);
      expect(family).toMatchObject({ type: definition.kind, help: definition.help });
      expect(family?.unit).toBe("unit" in definition ? definition.unit : "");
    }
  });

  test("has nothing but its end when nothing was counted", () => {
    expect(openMetricsText({ counters: [], gauges: [], histograms: [] })).toBe("# EOF\n");
  });

  test("says what was counted", () => {
    const tally = createTally();
    tally.count("sallyport_refusals", { stage: "trust", reason: "peer-not-trusted" }, 3);
    tally.observe("sallyport_stage_duration_seconds", { stage: "trust" }, 0.004);
    const families = parseOpenMetrics(openMetricsText(tally.take()));
    expect(valueOf(families, "sallyport_refusals_total", { stage: "trust", reason: "peer-not-trusted" })).toBe(3);
    const bucket = (le: string) => valueOf(families, "sallyport_stage_duration_seconds_bucket", { stage: "trust", le });
    expect([bucket("0.0025"), bucket("0.005"), bucket("+Inf")]).toEqual([0, 1, 1]);
    expect(valueOf(families, "sallyport_stage_duration_seconds_sum", { stage: "trust" })).toBe(0.004);
  });
});

const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }): number =>
  (a.name ?? "") < (b.name ?? "") ? -1 : 1;

describe("docs/metrics.md", () => {
  const rows = [...document.matchAll(/^\| `([a-z_]+)` +\| (\w+) +\| ([^|]*) +\| +(.*?) *\|$/gm)];
  const documented = rows.map(([, name, kind, , labels = ""]) => ({
    name,
    kind,
    labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label),
  }));

  test("describes every metric of the code with its kind and its labels, and no other", () => {
    const coded = Object.entries(METRICS).map(([name, { kind, labels }]) => ({
      name,
      kind: kind as string,
      labels: [...labels] as string[],
    }));
    expect(documented.toSorted(byName)).toEqual(coded.toSorted(byName));
  });
});

describe("the strict reader", () => {
  test.each([
    ["no end mark", "# TYPE a gauge\na 1\n"],
    ["a counter without its suffix", "# TYPE a counter\na 1\n# EOF\n"],
    ["a repeated sample", "# TYPE a gauge\na 1\na 2\n# EOF\n"],
    ["a split family", "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na 2\n# EOF\n"],
    ["a unit that is not in the name", "# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF\n"],
    [
      "a histogram that sinks",
      '# TYPE a histogram\na_bucket{le="1.0"} 2\na_bucket{le="+Inf"} 1\na_count 1\na_sum 1\n# EOF\n',
    ],
    ["a histogram without its last bucket", '# TYPE a histogram\na_bucket{le="1.0"} 2\na_count 2\na_sum 1\n# EOF\n'],
    ["an unescaped quote", '# TYPE a gauge\na{b="c"d"} 1\n# EOF\n'],
    ["an empty line", "# TYPE a gauge\n\na 1\n# EOF\n"],
  ])("refuses %s", (_, text) => {
    expect(() => parseOpenMetrics(text)).toThrow();
  });
});
