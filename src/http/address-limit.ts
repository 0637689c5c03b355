/** Requests of one address, by the platform's counter: per location and inexact by design, before anything else is done. */
import type { MiddlewareHandler } from "hono";
import { ProxyError } from "../wire/problem.ts";
import { addressOf, type HttpEnv } from "./request-scope.ts";

const RETRY_AFTER_MS = 10_000;

export const addressLimit: MiddlewareHandler<HttpEnv> = async (c, next) => {
  const { config } = c.get("runtime");
  const address = config.rateLimitPerIp ? addressOf(c.req.raw) : null;
  if (address !== null && !(await c.env.RATE_LIMIT_IP.limit({ key: address })).success) {
    c.get("log").warn("address.limited", { address });
    throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", { retryAfterMs: RETRY_AFTER_MS });
  }
  await next();
};
