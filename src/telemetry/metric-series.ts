/**
 * Numbers by series, bounded. A series is its own text in the exposition, `name{label="value"}`, so that nothing is
 * kept twice and nothing needs escaping: label values are of a harmless form or they are not distinguished.
 */
import {
  boundsOf,
  type CounterName,
  type GaugeName,
  type HistogramName,
  type LabelsOf,
  METRICS,
  type MetricName,
} from "./metric-definitions.ts";

/** A histogram: how many fell into each bucket, the infinite one last, and their sum. Not cumulative. */
export type Distribution = { counts: number[]; sum: number };

export type Snapshot = {
  counters: [series: string, value: number][];
  gauges: [series: string, value: number][];
  histograms: [series: string, distribution: Distribution][];
};

export type Tally = {
  count<Name extends CounterName>(name: Name, labels: LabelsOf<Name>, n?: number): void;
  gauge<Name extends GaugeName>(name: Name, labels: LabelsOf<Name>, value: number): void;
  observe<Name extends HistogramName>(name: Name, labels: LabelsOf<Name>, value: number): void;
  isEmpty(): boolean;
  /** Everything so far; the tally begins anew. */
  take(): Snapshot;
};

/** Route × method × status is the widest family; all of them together stay well below this. */
export const SERIES_MAX = 4_096;

/** Nothing with quotes, blanks or line ends, and nothing long enough for an identifier or a secret. */
const HARMLESS = /^[A-Za-z0-9_./:*-]{1,64}$/;
const IDENTIFIER = /^did:|[0-9A-HJKMNP-TV-Z]{26}/;
const OTHER = "other";

const SERIES_REFUSED = "sallyport_metric_series_refused";

/** @param seriesMax series at most; what would be one more is counted as refused */
export function createTally(seriesMax: number = SERIES_MAX): Tally {
  // Found by walking the values of the labels: building the text of a series anew for every count would cost most of it.
  const roots = new Map<MetricName, Node>();
  const cells: Cell[] = [];
  let touched: Cell[] = [];
  let refused = 0;

  /** The cell of a series; null when there are too many, which is counted instead. */
  function cellOf<Name extends MetricName>(name: Name, labels: LabelsOf<Name>): Cell | null {
    const values: Readonly<Record<string, string | undefined>> = labels;
    let node = roots.get(name) ?? newNode();
    if (!roots.has(name)) roots.set(name, node);
    for (const label of METRICS[name].labels) {
      const value = values[label] ?? ABSENT;
      let next: Node | undefined = node.next.get(value);
      if (next === undefined) {
        const kept = value === ABSENT ? ABSENT : harmless(value);
        next = node.next.get(kept);
        if (next === undefined) {
          if (cells.length >= seriesMax) return null;
          node.next.set(kept, (next = newNode()));
        }
      }
      node = next;
    }
    if (node.cell === null) {
      if (cells.length >= seriesMax) return null;
      node.cell = { series: seriesOf(name, labels), isTouched: false, value: 0, distribution: null };
      cells.push(node.cell);
    }
    return node.cell;
  }

  /** The cell, to be written to; it is part of what is taken next. */
  function touch<Name extends MetricName>(name: Name, labels: LabelsOf<Name>): Cell | null {
    const cell = cellOf(name, labels);
    if (cell === null) refused += 1;
    else if (!cell.isTouched) {
      cell.isTouched = true;
      touched.push(cell);
    }
    return cell;
  }

  return {
    count(name, labels, n = 1) {
      const cell = touch(name, labels);
      if (cell !== null) cell.value += n;
    },

    gauge(name, labels, value) {
      const cell = touch(name, labels);
      if (cell !== null) cell.value = value;
    },

    observe(name, labels, value) {
      const cell = touch(name, labels);
      if (cell === null) return;
      const bounds = boundsOf(name);
      cell.distribution ??= { counts: Array.from({ length: bounds.length + 1 }, () => 0), sum: 0 };
      const { counts } = cell.distribution;
      let bucket = 0;
      while (bucket < bounds.length && value > (bounds[bucket] ?? Infinity)) bucket += 1;
      counts[bucket] = (counts[bucket] ?? 0) + 1;
      cell.distribution.sum += value;
    },

    isEmpty: () => touched.length === 0 && refused === 0,

    take() {
      const snapshot: Snapshot = { counters: [], gauges: [], histograms: [] };
      for (const cell of touched) {
        const { series, value, distribution } = cell;
        if (distribution !== null) snapshot.histograms.push([series, distribution]);
        else snapshot[METRICS[nameOf(series)].kind === "gauge" ? "gauges" : "counters"].push([series, value]);
        cell.isTouched = false;
        cell.value = 0;
        cell.distribution = null;
      }
      if (refused > 0) snapshot.counters.push([SERIES_REFUSED, refused]);
      touched = [];
      refused = 0;
      return snapshot;
    },
  };
}

type Cell = { readonly series: string; isTouched: boolean; value: number; distribution: Distribution | null };
/** One more label's value a step. */
type Node = { readonly next: Map<string, Node>; cell: Cell | null };

const newNode = (): Node => ({ next: new Map(), cell: null });
/** A label that is left out; no value is empty. */
const ABSENT = "";

function nameOf(series: string): MetricName {
  const brace = series.indexOf("{");
  return (brace === -1 ? series : series.slice(0, brace)) as MetricName;
}

/** The series of a metric with these labels, as it stands in the exposition. */
export function seriesOf<Name extends MetricName>(name: Name, labels: LabelsOf<Name>): string {
  let text = "";
  // By the loop over names: `Object.entries` makes an array a label, and this runs some ten times a request.
  const values: Readonly<Record<string, string | undefined>> = labels;
  for (const label in values) {
    const value = values[label];
    if (value !== undefined) text += `${text === "" ? "" : ","}${label}="${harmless(value)}"`;
  }
  return text === "" ? name : `${name}{${text}}`;
}

/** Puts one snapshot onto another: sums add up, the later gauge counts. */
export function addSnapshot(onto: Snapshot, more: Snapshot): Snapshot {
  const counters = new Map(onto.counters);
  for (const [series, n] of more.counters) counters.set(series, (counters.get(series) ?? 0) + n);
  const histograms = new Map(onto.histograms);
  for (const [series, distribution] of more.histograms) {
    histograms.set(series, addDistributions(histograms.get(series), distribution));
  }
  return {
    counters: [...counters],
    gauges: [...new Map([...onto.gauges, ...more.gauges])],
    histograms: [...histograms],
  };
}

/** The sum of two distributions; one with other bounds, of an older version of this program, is replaced. */
export function addDistributions(older: Distribution | undefined, newer: Distribution): Distribution {
  if (older === undefined || older.counts.length !== newer.counts.length) return newer;
  return { counts: older.counts.map((n, index) => n + (newer.counts[index] ?? 0)), sum: older.sum + newer.sum };
}

function harmless(value: string): string {
  return HARMLESS.test(value) && !IDENTIFIER.test(value) ? value : OTHER;
}
