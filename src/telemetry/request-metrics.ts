/** What one request adds to the numbers: to the counters, or as one wide point where a dataset is bound. */
import type { Meter } from "./meter.ts";

/** As much of a decision of the chain as is counted. */
export type DecisionNumbers = {
  readonly route: string;
  readonly credential: string | null;
  /** By how much the signer's clock is ahead, in milliseconds. */
  readonly skewMs: number | null;
  readonly caches: Readonly<Partial<Record<string, string>>>;
  readonly durationsMs: Readonly<Partial<Record<string, number>>>;
  readonly outcome: {
    readonly accepted: boolean;
    readonly stage?: string;
    readonly refusal?: { readonly reason: string };
  } | null;
};

export type RequestNumbers = {
  /** The route's pattern, never a path. */
  readonly route: string;
  readonly method: string;
  readonly status: number;
  readonly durationMs: number;
  /** Null where the chain was not asked. */
  readonly decision: DecisionNumbers | null;
  readonly skewWarnSeconds: number;
};

const METHODS = new Set(["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"]);

/** A method is the caller's own text. */
export function methodLabel(method: string): string {
  return METHODS.has(method) ? method : "other";
}

/** Counts one request and what was decided about it. */
export function countRequest(meter: Pick<Meter, "count" | "observe">, numbers: RequestNumbers): void {
  const { route, status, durationMs, decision } = numbers;
  meter.count("sallyport_requests", { route, method: methodLabel(numbers.method), status: String(status) });
  meter.observe("sallyport_request_duration_seconds", { route }, durationMs / 1_000);
  if (decision === null || decision.outcome === null) return;
  const { outcome, caches, durationsMs, skewMs } = decision;
  meter.count("sallyport_decisions", {
    route: decision.route,
    credential: decision.credential ?? "none",
    outcome: outcome.accepted ? "accepted" : "refused",
  });
  for (const cache in caches) meter.count("sallyport_cache_lookups", { cache, state: caches[cache] ?? "none" });
  for (const stage in durationsMs) {
    meter.observe("sallyport_stage_duration_seconds", { stage }, (durationsMs[stage] ?? 0) / 1_000);
  }
  if (!outcome.accepted) {
    meter.count("sallyport_refusals", { stage: outcome.stage ?? "none", reason: outcome.refusal?.reason ?? "none" });
  } else if (skewMs !== null) {
    const direction = skewMs < 0 ? "behind" : "ahead";
    const seconds = Math.abs(skewMs) / 1_000;
    meter.observe("sallyport_clock_skew_seconds", { direction }, seconds);
    if (seconds > numbers.skewWarnSeconds) meter.count("sallyport_clock_skew_warnings", { direction });
  }
}

/** The order of the columns is part of every query that was ever written: append, never reorder. */
export const POINT_BLOBS = [
  "route",
  "method",
  "status",
  "decisionRoute",
  "credential",
  "outcome",
  "stage",
  "reason",
  "tokenCache",
  "keysCache",
  "crlCache",
  "trustCache",
  "accessCache",
] as const;
export const POINT_DOUBLES = [
  "requests",
  "durationMs",
  "skewMs",
  "bodyMs",
  "tokenMs",
  "revocationMs",
  "proofMs",
  "trustMs",
  "accessMs",
  "gateMs",
] as const;

/** One wide point: `blob1` … and `double1` … in the order above, indexed by the route. */
export function analyticsPoint(numbers: RequestNumbers): { indexes: string[]; blobs: string[]; doubles: number[] } {
  const { route, method, status, durationMs, decision } = numbers;
  const outcome = decision?.outcome ?? null;
  const cache = (name: string): string => decision?.caches[name] ?? "";
  const ms = (stage: string): number => decision?.durationsMs[stage] ?? 0;
  return {
    indexes: [route.slice(0, 96)],
    blobs: [
      route,
      methodLabel(method),
      String(status),
      decision?.route ?? "",
      decision?.credential ?? "",
      outcome === null ? "" : outcome.accepted ? "accepted" : "refused",
      outcome?.stage ?? "",
      outcome?.refusal?.reason ?? "",
      cache("token"),
      cache("keys"),
      cache("crl"),
      cache("trust"),
      cache("access"),
    ],
    doubles: [
      1,
      durationMs,
      decision?.skewMs ?? 0,
      ms("body"),
      ms("token"),
      ms("revocation"),
      ms("proof"),
      ms("trust"),
      ms("access"),
      ms("gate"),
    ],
  };
}
