/** Routes that anyone may ask: the time, and whether this proxy is alive and ready. */
import type { Handler } from "hono";
import { startDeadline, withDeadline } from "../resilience/deadline.ts";
import { errorFields } from "../telemetry/log.ts";
import { chainScope, type HttpEnv } from "./request-scope.ts";

const NO_STORE = { "Cache-Control": "no-store" };

/** `GET /v1/time`: for clients whose clock is off. */
export const time: Handler<HttpEnv> = (c) => c.json({ unixMs: Date.now() }, 200, NO_STORE);

/** `GET /health`: this isolate runs, and nothing else is said. */
export const health: Handler<HttpEnv> = (c) => c.json({ status: "ok" }, 200, NO_STORE);

/** `GET /ready`: each dependency with its breaker's state; 503 while a request could not be served. */
export const ready: Handler<HttpEnv> = async (c) => {
  const { registry, registryScope, trust, config } = c.get("runtime");
  const nowMs = Date.now();
  let database: "ok" | "failing" = "ok";
  try {
    await withDeadline(config.storeTimeoutMs, () => c.env.DB.prepare("SELECT 1").first());
  } catch (error) {
    database = "failing";
    c.get("log").warn("ready.database_failing", errorFields(error));
  }
  const deadline = startDeadline(config.authDeadlineMs, Date.now);
  try {
    // A new isolate holds nothing yet: it looks before it speaks of the registry.
    await registry.warm(registryScope({ ...chainScope(c), deadline }));
  } finally {
    deadline.end();
  }
  const status = registry.status(nowMs);
  const dependencies = { ...status, trust: { breaker: trust.breaker(), database } };
  const isReady = status.keys.usable && status.crl.usable && (database === "ok" || trust.breaker().state !== "open");
  return c.json({ status: isReady ? "ready" : "unavailable", dependencies }, isReady ? 200 : 503, NO_STORE);
};
