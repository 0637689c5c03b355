/** Counts each request once it is answered: in memory, or as one wide point where a dataset is bound. */
import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import { flushSoon, meter } from "../../telemetry/metrics.ts";
import { analyticsPoint, countRequest, type RequestNumbers } from "../../telemetry/request-metrics.ts";
import { annotateSpan } from "../../telemetry/span.ts";
import type { HttpEnv } from "./request-context.ts";

/** What stands for a request that no route of the page took: the pattern of the middleware that saw it. */
const MIDDLEWARE = "/*";

const TRACEPARENT_LENGTH = 55;

/** Counts each request by its route and status, with what was decided about it; nothing while METRICS is off. */
export const measure: MiddlewareHandler<HttpEnv> = async (c, next) => {
  const { metrics, skewWarnSeconds } = c.get("runtime").config;
  meter.turn(metrics);
  if (!metrics) return next();
  const startedAtMs = Date.now();
  await next();
  const pattern = routePath(c, -1);
  const numbers: RequestNumbers = {
    route: pattern === MIDDLEWARE ? "unmatched" : pattern,
    method: c.req.method,
    status: c.res.status,
    durationMs: Date.now() - startedAtMs,
    decision: c.get("decision") ?? null,
    skewWarnSeconds,
  };
  if (c.env.ANALYTICS === undefined) countRequest(meter, numbers);
  else c.env.ANALYTICS.writeDataPoint(analyticsPoint(numbers));
  annotateSpan({
    "http.route": numbers.route,
    "sallyport.credential": numbers.decision?.credential ?? undefined,
    "sallyport.outcome": numbers.decision?.outcome?.accepted === false ? "refused" : "accepted",
    // The platform begins a trace of its own: by this it is found from the caller's.
    "sallyport.traceparent": c.req.header("traceparent")?.slice(0, TRACEPARENT_LENGTH),
  });
  flushSoon(c.env, (work) => c.executionCtx.waitUntil(work));
  return undefined;
};
