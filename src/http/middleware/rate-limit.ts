/** Requests of one address, by the platform's counters: per location and inexact by design, before anything else is done. */
import type { Context, MiddlewareHandler } from "hono";
import { discardBody } from "../../resilience/bounded-body.ts";
import { errorFields } from "../../telemetry/log.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { HttpEnv } from "./request-context.ts";

const RETRY_AFTER_MS = 10_000;

/** Every request; one without an address is counted against nobody. */
export const addressLimit: MiddlewareHandler<HttpEnv> = async (c, next) => {
  const address = c.get("address");
  if (address !== null) await refuseBeyond(c, c.env.RATE_LIMIT_IP, address, RETRY_AFTER_MS);
  await next();
};

/**
 * Counts a request of an address.
 *
 * @throws ProxyError PROXY_RATE_LIMIT_EXCEEDED beyond the counter's limit, unless limits for addresses are turned off
 */
export async function refuseBeyond(
  c: Context<HttpEnv>,
  counter: RateLimit,
  address: string,
  retryAfterMs: number,
): Promise<void> {
  if (!c.get("runtime").config.rateLimitPerIp || (await isWithinLimit(c, counter, address))) return;
  const { logLimit } = c.get("runtime");
  const leftOut = logLimit.due(`address.limited ${address}`, Date.now());
  if (leftOut !== null) c.get("log").warn("address.limited", { address, leftOut });
  // A client that is still sending would see a reset instead of the answer.
  await discardBody(c.req.raw.body);
  throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", { retryAfterMs });
}

/** A counter that fails refuses nobody: it is inexact anyway, and what must be exact is decided in the gate. */
async function isWithinLimit(c: Context<HttpEnv>, counter: RateLimit, address: string): Promise<boolean> {
  try {
    return (await counter.limit({ key: address })).success;
  } catch (error) {
    c.get("log").error("address.limit_unavailable", errorFields(error));
    return true;
  }
}
