/** Who is calling, for every route: the chain decides, guesses at bearer tokens are counted, and a refusal of the route itself is logged with the decision. */
import type { Context } from "hono";
import type { Passed } from "../auth/passed.ts";
import type { RouteNeeds } from "../auth/form.ts";
import { refusal } from "../auth/reasons.ts";
import { proxyErrorFrom } from "../wire/problem.ts";
import { countGuess } from "./guesses.ts";
import { chainScope, type HttpEnv } from "./middleware/request-context.ts";
import { operatorOfKey } from "./operator-key.ts";

/** @throws ProxyError with the chain's refusal; 429 once an address has guessed too often. A token that verifies is never refused for it. */
export async function authenticate(c: Context<HttpEnv>, needs: RouteNeeds): Promise<Passed> {
  const { chain } = c.get("runtime");
  const authenticated = await chain.authenticate(c.req.raw, needs, chainScope(c));
  if (authenticated.ok) {
    const passed = authenticated.value;
    return passed.kind === "credential" && passed.credential.kind === "operatorKey"
      ? operatorOfKey(c, passed, passed.credential.keyHash)
      : passed;
  }
  const { error } = authenticated;
  if (error.reason === "operator-token-wrong" || error.reason === "access-assertion-invalid") countGuess(c);
  throw error;
}

/** Runs what a route does with a passed request before the gate is asked; what it throws closes the decision. */
export async function beforeTheHop<T>(c: Context<HttpEnv>, passed: Passed, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (thrown) {
    const error = proxyErrorFrom(thrown);
    c.get("runtime").chain.conclude(passed, refusal("route-refused", { code: error.code }), chainScope(c));
    throw error;
  }
}
