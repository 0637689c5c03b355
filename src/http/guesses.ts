/** Guesses at secrets without a proof, counted against the address that they come from. */
import type { Context } from "hono";
import { ProxyError } from "../wire/problem.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

/** Counts a wrong secret against its address. @throws ProxyError 429 once the address is locked */
export function countGuess(c: Context<HttpEnv>): void {
  const lockedMs = c.get("runtime").lockout.failed(c.get("address"), Date.now());
  if (lockedMs > 0) throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", { retryAfterMs: lockedMs });
}
