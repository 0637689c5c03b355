/** A route that stands before a method: authenticates, reads the parameters, runs the method where it belongs. */
import type { Context, Handler } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { Passed } from "../../auth/chain.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import type { GateCall, GateCaller } from "../../gate/gate.ts";
import type { Reply } from "../../rpc/dispatcher.ts";
import type { CallContext } from "../../rpc/method.ts";
import { inSpan } from "../../telemetry/span.ts";
import { type AgentDid, parseAgentDid } from "../../wire/did.ts";
import { nestedTooDeep, nestsDeeperThan, NESTING_MAX } from "../../wire/nesting.ts";
import { type ProblemCode, ProxyError } from "../../wire/problem.ts";
import { authenticate, beforeTheHop } from "../authenticate.ts";
import { acceptedByGate, gateCallerOf, gateFailed, gateOf, refusedByGate } from "../gate-client.ts";
import { addressOf, type HttpEnv } from "../middleware/request-context.ts";

type Params = Record<string, unknown>;
type ReadParams = (c: Context<HttpEnv>, body: Uint8Array) => Params;

export type MethodRoute = {
  method: string;
  params: ReadParams;
  status?: ContentfulStatusCode;
  /** The parameter by which an operator names the agent whose gate the method runs in; without it, the Worker. */
  inGateOf?: string;
};

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const noParams: ReadParams = () => ({});
/** A copy: an object without a prototype does not cross to a gate. */
export const queryParams: ReadParams = (c) => ({ ...c.req.query() });
export const pathAndQuery: ReadParams = (c) => ({ ...c.req.query(), ...c.req.param() });

/** A JSON object in the body, nested no deeper than can be handed on; anything else is refused with the route's own code. */
export function bodyParams(code: ProblemCode = "PROXY_BAD_REQUEST"): ReadParams {
  return (_c, body) => {
    let text: string;
    let value: unknown;
    try {
      text = textDecoder.decode(body);
      value = JSON.parse(text);
    } catch (error) {
      throw new ProxyError(code, { detail: "The body must be JSON in UTF-8.", cause: error });
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new ProxyError(code, { detail: "The body must be a JSON object." });
    }
    if (nestsDeeperThan(text, NESTING_MAX)) throw nestedTooDeep("body", code);
    return value as Params;
  };
}

export function methodRoute(needs: RouteNeeds, route: MethodRoute): Handler<HttpEnv> {
  return async (c) => {
    const passed = await authenticate(c, needs);
    const params = await beforeTheHop(c, passed, () => route.params(c, passed.body));
    const reply = await run(c, passed, route, params);
    if (!reply.ok) {
      const { code, message: detail, retryAfterMs, data } = reply;
      throw new ProxyError(code, { detail, retryAfterMs, data });
    }
    return c.json(reply.result as Record<string, unknown>, route.status ?? 200, { "Cache-Control": "no-store" });
  };
}

async function run(c: Context<HttpEnv>, passed: Passed, route: MethodRoute, params: Params): Promise<Reply> {
  switch (passed.kind) {
    case "agent":
    case "credential": {
      const at = gateCallerOf(c, passed);
      if (at === null)
        throw new ProxyError("PROXY_AUTH_INVALID_TOKEN", { reason: "a credential that this route does not take" });
      return inGate(c, passed, at.agentDid, at.caller, route, params);
    }
    case "operator": {
      const { inGateOf } = route;
      const named = inGateOf === undefined ? null : await beforeTheHop(c, passed, () => namedAgent(params[inGateOf]));
      if (named !== null) return inGate(c, passed, named, { kind: "operator" }, route, params);
      acceptedByGate(c, passed);
      return c.get("runtime").dispatcher.dispatch(workerContext(c), "http", route.method, params);
    }
  }
}

export function namedAgent(value: unknown): AgentDid {
  const agentDid = typeof value === "string" ? parseAgentDid(value) : null;
  if (agentDid === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: is no agent DID" });
  return agentDid;
}

async function inGate(
  c: Context<HttpEnv>,
  passed: Passed,
  agentDid: AgentDid,
  caller: GateCaller,
  route: MethodRoute,
  params: Params,
): Promise<Reply> {
  const replies = await callGate(c, passed, agentDid, {
    caller,
    surface: "http",
    calls: [{ method: route.method, params }],
  });
  return replies[0] ?? { ok: false, code: "PROXY_INTERNAL", message: "No answer." };
}

/** Runs calls in an agent's gate and closes the decision with its answer. @throws ProxyError when the gate refuses the caller */
export async function callGate(
  c: Context<HttpEnv>,
  passed: Passed,
  agentDid: AgentDid,
  what: Pick<GateCall, "caller" | "surface" | "calls">,
): Promise<Reply[]> {
  const call: GateCall = {
    ...what,
    requestId: c.get("requestId"),
    origin: addressOf(c.req.raw),
    bookmark: c.get("bookmarks")?.given ?? null,
  };
  // An RPC hands back its answer in a wrapper for remote use; here the answer is plain data.
  const answer = (await inSpan("gate.call", () => gateOf(c, agentDid).call(call)).catch((error: unknown) => ({
    ok: false,
    refusal: gateFailed(c, error),
  }))) as
    | { ok: true; replies: Reply[]; bookmark: string | null }
    | { ok: false; refusal: ReturnType<typeof gateFailed> };
  if (!answer.ok) throw refusedByGate(c, passed, answer.refusal);
  acceptedByGate(c, passed);
  const bookmarks = c.get("bookmarks");
  if (bookmarks !== undefined) bookmarks.latest = answer.bookmark;
  return answer.replies;
}

/** The operator's calls that are about no single agent run here, above every agent's authority. */
export function workerContext(c: Context<HttpEnv>): CallContext {
  return {
    env: c.env,
    config: c.get("runtime").config,
    db: c.env.DB,
    principal: { kind: "operator" },
    authority: { assertCurrent: () => {}, fence: () => [], endedItself: () => {} },
    requestId: c.get("requestId"),
    origin: addressOf(c.req.raw),
    now: Date.now,
    log: c.get("log"),
    agentDid: null,
    gates: { of: (did) => gateOf(c, did) },
    gate: null,
    bookmarks: c.get("bookmarks") ?? null,
  };
}
