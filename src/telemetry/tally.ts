/**
 * Numbers by series, bounded. A series is its own text in the exposition, `name{label="value"}`, so that nothing is
 * kept twice and nothing needs escaping: label values are of a harmless form or they are not told apart.
 */
import {
  boundsOf,
  type CounterName,
  type GaugeName,
  type HistogramName,
  type LabelsOf,
  type MetricName,
} from "./metric-table.ts";

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

export function createTally(seriesMax: number = SERIES_MAX): Tally {
  let counters = new Map<string, number>();
  let gauges = new Map<string, number>();
  let histograms = new Map<string, Distribution>();
  /** Whether a series may be kept; one refused is counted instead. */
  const fits = (isKnown: boolean): boolean => {
    if (isKnown || counters.size + gauges.size + histograms.size < seriesMax) return true;
    counters.set(SERIES_REFUSED, (counters.get(SERIES_REFUSED) ?? 0) + 1);
    return false;
  };

  return {
    count(name, labels, n = 1) {
      const series = seriesOf(name, labels);
      const known = counters.get(series);
      if (fits(known !== undefined)) counters.set(series, (known ?? 0) + n);
    },

    gauge(name, labels, value) {
      const series = seriesOf(name, labels);
      if (fits(gauges.has(series))) gauges.set(series, value);
    },

    observe(name, labels, value) {
      const series = seriesOf(name, labels);
      const bounds = boundsOf(name);
      let distribution = histograms.get(series);
      if (distribution === undefined) {
        if (!fits(false)) return;
        distribution = { counts: Array.from({ length: bounds.length + 1 }, () => 0), sum: 0 };
        histograms.set(series, distribution);
      }
      let bucket = 0;
      while (bucket < bounds.length && value > (bounds[bucket] ?? Infinity)) bucket += 1;
      distribution.counts[bucket] = (distribution.counts[bucket] ?? 0) + 1;
      distribution.sum += value;
    },

    isEmpty: () => counters.size + gauges.size + histograms.size === 0,

    take() {
      const snapshot: Snapshot = { counters: [...counters], gauges: [...gauges], histograms: [...histograms] };
      counters = new Map();
      gauges = new Map();
      histograms = new Map();
      return snapshot;
    },
  };
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
