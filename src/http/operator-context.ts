/** The context of an operator's call that runs in the Worker. */
import type { Context } from "hono";
import type { CallContext } from "../call/context.ts";
import { gateStub } from "./gate-client.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

/** The operator's calls that are about no single agent run here, above every agent's authority. */
export function workerContext(c: Context<HttpEnv>): CallContext {
  return {
    env: c.env,
    config: c.get("runtime").config,
    db: c.env.DB,
    principal: { kind: "operator" },
    authority: { assertCurrent: () => {}, fence: () => [], revokedItself: () => {} },
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
