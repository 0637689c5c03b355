/** Requests of one address, by the platform's counter: per location and inexact by design, before anything else is done. */
import type { Context, MiddlewareHandler } from "hono";
import { discardBody } from "../auth/body.ts";
import { errorFields } from "../telemetry/log.ts";
import { ProxyError } from "../wire/problem.ts";
import { addressOf, type HttpEnv } from "./request-scope.ts";

const RETRY_AFTER_MS = 10_000;

export const addressLimit: MiddlewareHandler<HttpEnv> = async (c, next) => {
  const { config } = c.get("runtime");
  const address = config.rateLimitPerIp ? addressOf(c.req.raw) : null;
  if (address !== null && !(await isWithinLimit(c, address))) {
    c.get("log").warn("address.limited", { address });
    // A client that is still sending would see a reset instead of the answer.
    await discardBody(c.req.raw.body);
    throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", { retryAfterMs: RETRY_AFTER_MS });
  }
  await next();
};

/** A counter that fails refuses nobody: it is inexact anyway, and what must be exact is decided in the gate. */
async function isWithinLimit(c: Context<HttpEnv>, address: string): Promise<boolean> {
  try {
    return (await c.env.RATE_LIMIT_IP.limit({ key: address })).success;
  } catch (error) {
    c.get("log").error("address.limit_unavailable", errorFields(error));
    return true;
  }
}
