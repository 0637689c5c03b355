/**
 * Every number that this program keeps: its name, what it means, its unit and its labels. Other folders count by these
 * names alone, `docs/metrics.md` describes them, and a test holds the two together.
 */

type Counter = { readonly kind: "counter"; readonly help: string; readonly labels: readonly string[] };
type Gauge = {
  readonly kind: "gauge";
  readonly help: string;
  readonly labels: readonly string[];
  readonly unit?: "seconds";
};
type Histogram = {
  readonly kind: "histogram";
  readonly help: string;
  readonly labels: readonly string[];
  readonly unit: "seconds";
  /** Upper bounds in the unit, ascending; the last one, infinity, goes without saying. */
  readonly bounds: readonly number[];
};
export type MetricDefinition = Counter | Gauge | Histogram;

/** From a request served from memory up to one that used up every deadline. */
const WAITING_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;
/** Around the warning line and the end of the window, as they are by default (contract §6). */
const SKEW_SECONDS = [1, 2, 5, 10, 30, 60, 120, 200, 250, 300] as const;

const DUAL_WRITE_LABELS = ["op", "exception_class"] as const;

export const METRICS = {
  sallyport_requests: {
    kind: "counter",
    help: "Answered requests.",
    labels: ["route", "method", "status"],
  },
  sallyport_request_duration_seconds: {
    kind: "histogram",
    help: "Time from a request's arrival to its answer's first byte.",
    unit: "seconds",
    labels: ["route"],
    bounds: WAITING_SECONDS,
  },
  sallyport_decisions: {
    kind: "counter",
    help: "Requests that the chain and the gate decided.",
    labels: ["route", "credential", "outcome"],
  },
  sallyport_refusals: {
    kind: "counter",
    help: "Refused requests by the stage that refused and its reason.",
    labels: ["stage", "reason"],
  },
  sallyport_stage_duration_seconds: {
    kind: "histogram",
    help: "Time that a request waited in a stage of the chain; one served from memory waits none.",
    unit: "seconds",
    labels: ["stage"],
    bounds: WAITING_SECONDS,
  },
  sallyport_cache_lookups: {
    kind: "counter",
    help: "What a cache of the chain did for a request.",
    labels: ["cache", "state"],
  },
  sallyport_dependency_calls: {
    kind: "counter",
    help: "Calls that went out to a dependency.",
    labels: ["dependency", "outcome"],
  },
  sallyport_breaker_transitions: {
    kind: "counter",
    help: "Changes of a breaker's state, each counted once in the isolate that it happened in.",
    labels: ["dependency", "from", "to"],
  },
  sallyport_clock_skew_seconds: {
    kind: "histogram",
    help: "How far the clocks of accepted agents are off.",
    unit: "seconds",
    labels: ["direction"],
    bounds: SKEW_SECONDS,
  },
  sallyport_clock_skew_warnings: {
    kind: "counter",
    help: "Requests accepted beyond the warning line of the clock skew.",
    labels: ["direction"],
  },
  sallyport_agent_clock_drifts: {
    kind: "counter",
    help: "Times that an agent's smoothed drift crossed the warning line, at most hourly per agent.",
    labels: ["direction"],
  },
  sallyport_group_changes: {
    kind: "counter",
    help: "Groups that were made or deleted, and members that came, left or were removed.",
    labels: ["change"],
  },
  sallyport_group_sends: {
    kind: "counter",
    help: "Sends to all of a group that were accepted over HTTP.",
    labels: [],
  },
  sallyport_group_messages: {
    kind: "counter",
    help: "Messages that these came to.",
    labels: [],
  },
  sallyport_metric_batches_lost: {
    kind: "counter",
    help: "Batches of numbers given up because the aggregate could not be reached.",
    labels: [],
  },
  sallyport_metric_series_refused: {
    kind: "counter",
    help: "Series not kept because there were too many.",
    labels: [],
  },
  task_fgac_dual_write_attempt: {
    kind: "counter",
    help: "Attempts to write to the relationship graph beside the database.",
    labels: DUAL_WRITE_LABELS,
  },
  task_fgac_dual_write_success: {
    kind: "counter",
    help: "Dual writes that the relationship graph took.",
    labels: DUAL_WRITE_LABELS,
  },
  task_fgac_dual_write_retry: {
    kind: "counter",
    help: "Dual writes tried again after a failure that passes.",
    labels: DUAL_WRITE_LABELS,
  },
  task_fgac_dual_write_failure: {
    kind: "counter",
    help: "Dual writes left to the outbox after their last attempt.",
    labels: DUAL_WRITE_LABELS,
  },
  task_fgac_drift: {
    kind: "gauge",
    help: "Repairs and removals due in the relationship graph, as reconciliation last saw them.",
    labels: [],
  },
  task_fgac_outbox_depth: {
    kind: "gauge",
    help: "Writes waiting for a remote relationship graph.",
    labels: [],
  },
  task_fgac_outbox_parked: {
    kind: "gauge",
    help: "Of these, registers that the remote relationship graph refused permanently.",
    labels: [],
  },
  sallyport_breaker_open: {
    kind: "gauge",
    help: "1 while the breaker before a dependency is open or probing in the isolate that answers.",
    labels: ["dependency"],
  },
  sallyport_registry_document_age_seconds: {
    kind: "gauge",
    help: "Age of what the isolate that answers holds of a registry document.",
    unit: "seconds",
    labels: ["document"],
  },
} as const satisfies Record<string, MetricDefinition>;

export type MetricName = keyof typeof METRICS;
type NameOf<Kind extends MetricDefinition["kind"]> = {
  [Name in MetricName]: (typeof METRICS)[Name]["kind"] extends Kind ? Name : never;
}[MetricName];
export type CounterName = NameOf<"counter">;
export type GaugeName = NameOf<"gauge">;
export type HistogramName = NameOf<"histogram">;

/** The labels of a metric; one left out is left out of the series. */
export type LabelsOf<Name extends MetricName> = Partial<Record<(typeof METRICS)[Name]["labels"][number], string>>;

/** The upper bounds of a histogram, without the infinite last one. */
export function boundsOf(name: HistogramName): readonly number[] {
  return METRICS[name].bounds;
}
