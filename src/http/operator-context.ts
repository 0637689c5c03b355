/** The context of an operator's call that runs in the Worker. */
import type { Context } from "hono";
import type { Authority } from "../authority/authority.ts";
import type { Principal } from "../authority/principal.ts";
import type { CallContext } from "../call/context.ts";
import { gateStub } from "./gate-client.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

/** Calls that are about no single agent run here, above every agent's authority. */
export function workerContext(c: Context<HttpEnv>, principal: Principal, authority: Authority): CallContext {
  return {
    env: c.env,
    config: c.get("runtime").config,
    db: c.env.DB,
    principal,
    authority,
    requestId: c.get("requestId"),
    origin: c.get("address"),
    now: Date.now,
    log: c.get("log"),
    agentDid: null,
    gates: { of: (did) => gateStub(c, did) },
    gate: null,
    bookmarks: c.get("bookmarks") ?? null,
  };
}
