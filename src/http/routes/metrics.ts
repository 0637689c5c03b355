/** `GET /metrics`: the operator's numbers, as OpenMetrics text. */
import type { Context, Handler } from "hono";
import type { RouteNeeds } from "../../auth/form.ts";
import { withDeadline } from "../../resilience/deadline.ts";
import { METRICS_ROLES } from "../../rpc/permissions.ts";
import { errorFields } from "../../telemetry/log.ts";
import { meter, sendTo } from "../../telemetry/metrics.ts";
import { OPEN_METRICS_TYPE, openMetricsText } from "../../telemetry/openmetrics-text.ts";
import { seriesOf, type Snapshot } from "../../telemetry/metric-series.ts";
import { ProxyError } from "../../wire/problem.ts";
import { authenticate, beforeTheHop } from "../authenticate.ts";
import { acceptedByGate } from "../gate-client.ts";
import type { HttpEnv } from "../middleware/request-context.ts";

/** `GET /metrics`: OpenMetrics text. @throws ProxyError PROXY_NOT_FOUND while METRICS is off */
export function metrics(needs: RouteNeeds): Handler<HttpEnv> {
  return async (c) => {
    const passed = await authenticate(c, needs);
    await beforeTheHop(c, passed, () => {
      if (passed.kind === "operator" && METRICS_ROLES.includes(passed.principal.role)) return;
      throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "the numbers are not this role's" });
    });
    acceptedByGate(c, passed);
    if (!c.get("runtime").config.metrics)
      throw new ProxyError("PROXY_NOT_FOUND", { detail: "The numbers are turned off." });
    const aggregate = await readAggregate(c);
    const text = openMetricsText({ ...aggregate, gauges: [...aggregate.gauges, ...gaugesOfIsolate(c)] });
    return new Response(text, { headers: { "Content-Type": OPEN_METRICS_TYPE, "Cache-Control": "no-store" } });
  };
}

/** What this isolate has not handed over yet goes first, so that the numbers are those of this moment. */
async function readAggregate(c: Context<HttpEnv>): Promise<Snapshot> {
  try {
    return await withDeadline(c.get("runtime").config.authDeadlineMs, async () => {
      await meter.flush(sendTo(c.env));
      return JSON.parse(await c.env.HOUSEKEEPING.getByName("main").numbers()) as Snapshot;
    });
  } catch (error) {
    // Half of the numbers would look like counters that have been set back.
    c.get("log").error("metrics.unavailable", errorFields(error));
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { retryAfterMs: 1_000, cause: error });
  }
}

/** States, unlike counts, cannot be added up over isolates: these are of the one that answers. */
function gaugesOfIsolate(c: Context<HttpEnv>): Snapshot["gauges"] {
  const { registry, trust } = c.get("runtime");
  const { keys, crl, access } = registry.status(Date.now());
  const breakers = { keys: keys.breaker, crl: crl.breaker, access: access.breaker, trust: trust.breaker() };
  const gauges: Snapshot["gauges"] = Object.entries(breakers).map(([dependency, { state }]) => [
    seriesOf("sallyport_breaker_open", { dependency }),
    state === "closed" ? 0 : 1,
  ]);
  for (const [document, { ageMs }] of Object.entries({ keys, crl })) {
    if (ageMs !== null) gauges.push([seriesOf("sallyport_registry_document_age_seconds", { document }), ageMs / 1_000]);
  }
  return gauges;
}
