/** Numbers as OpenMetrics text, version 1.0.0. */
import { type HistogramName, METRICS, type MetricDefinition, type MetricName } from "./metric-definitions.ts";
import type { Distribution, Snapshot } from "./metric-series.ts";

export const OPEN_METRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Series = { name: string; labels: string };

/** Every family of the table that has a series, in the table's order, and the end mark. */
export function openMetricsText(snapshot: Snapshot): string {
  const lines: string[] = [];
  const counters = byFamily(snapshot.counters);
  const gauges = byFamily(snapshot.gauges);
  const histograms = byFamily(snapshot.histograms);
  for (const [name, definition] of Object.entries(METRICS) as [MetricName, MetricDefinition][]) {
    const samples = familyLines(name, definition, {
      counters: counters.get(name) ?? [],
      gauges: gauges.get(name) ?? [],
      histograms: histograms.get(name) ?? [],
    });
    if (samples.length === 0) continue;
    lines.push(`# TYPE ${name} ${definition.kind}`);
    if ("unit" in definition && definition.unit !== undefined) lines.push(`# UNIT ${name} ${definition.unit}`);
    lines.push(`# HELP ${name} ${escaped(definition.help)}`, ...samples);
  }
  lines.push("# EOF", "");
  return lines.join("\n");
}

type Family = {
  counters: [labels: string, value: number][];
  gauges: [labels: string, value: number][];
  histograms: [labels: string, distribution: Distribution][];
};

function familyLines(name: MetricName, definition: MetricDefinition, family: Family): string[] {
  switch (definition.kind) {
    case "counter":
      return family.counters.map(([labels, value]) => `${name}_total${braced(labels)} ${number(value)}`);
    case "gauge":
      return family.gauges.map(([labels, value]) => `${name}${braced(labels)} ${number(value)}`);
    case "histogram":
      return family.histograms.flatMap(([labels, distribution]) =>
        distribution.counts.length === definition.bounds.length + 1
          ? histogramLines(name as HistogramName, definition.bounds, labels, distribution)
          : [],
      );
  }
}

function histogramLines(
  name: HistogramName,
  bounds: readonly number[],
  labels: string,
  { counts, sum }: Distribution,
): string[] {
  const comma = labels === "" ? "" : ",";
  let total = 0;
  const lines = counts.map((n, index) => {
    total += n;
    const bound = bounds[index];
    return `${name}_bucket{${labels}${comma}le="${bound === undefined ? "+Inf" : canonical(bound)}"} ${total}`;
  });
  return [...lines, `${name}_count${braced(labels)} ${total}`, `${name}_sum${braced(labels)} ${number(sum)}`];
}

/** Groups series by their family, in the order of their text, so that two expositions can be compared. */
function byFamily<T>(series: readonly [string, T][]): Map<string, [string, T][]> {
  const families = new Map<string, [string, T][]>();
  for (const [text, value] of series.toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    const { name, labels } = partsOf(text);
    const family = families.get(name);
    if (family === undefined) families.set(name, [[labels, value]]);
    else family.push([labels, value]);
  }
  return families;
}

function partsOf(series: string): Series {
  const brace = series.indexOf("{");
  return brace === -1
    ? { name: series, labels: "" }
    : { name: series.slice(0, brace), labels: series.slice(brace + 1, -1) };
}

function braced(labels: string): string {
  return labels === "" ? "" : `{${labels}}`;
}

/** Bounds are written with a decimal point (OpenMetrics: canonical numbers), so that every program spells them alike. */
function canonical(bound: number): string {
  return Number.isInteger(bound) ? `${bound}.0` : String(bound);
}

/** No number here needs an exponent; one that would is rounded to what the unit can mean. */
function number(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toFixed(6)));
}

function escaped(help: string): string {
  return help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}
