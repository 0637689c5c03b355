/** A route that stands before a method: authenticates, reads the parameters, runs the method where it belongs. */
import type { Context, Handler } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { Passed } from "../../auth/passed.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import { type WrittenReply, writtenReply } from "../../call/reply.ts";
import type { GateCaller } from "../../gate/protocol/calls.ts";
import type { AgentDid } from "../../wire/did.ts";
import { underOperator } from "../../operators/lease.ts";
import { JsonText } from "../../wire/json-text.ts";
import { ProxyError } from "../../wire/problem.ts";
import { authenticate, beforeTheHop } from "../authenticate.ts";
import { acceptedByGate, callGate, gateCallerOf, namedAgent } from "../gate-client.ts";
import type { HttpEnv } from "../middleware/request-context.ts";
import { jsonResponse } from "../json-response.ts";
import { workerContext } from "../operator-context.ts";
import { memberOf, type Params, type ReadParams } from "../params.ts";

export type MethodRoute = {
  method: string;
  params: ReadParams;
  status?: ContentfulStatusCode;
  /** How long a call that finds no messages waits for some. */
  waitMs?: (c: Context<HttpEnv>) => number;
  /** The status where the result decides on it. */
  statusOf?: (result: Record<string, unknown>) => ContentfulStatusCode;
  /** The parameter by which an operator names the agent whose gate the method runs in; without it, the Worker. */
  inGateOf?: string;
  /** What the answer shows of the result, where that depends on how this server was called. */
  shown?: (
    c: Context<HttpEnv>,
    result: Record<string, unknown>,
  ) => Record<string, unknown> | Promise<Record<string, unknown>>;
};

/** What stands behind a handler, for the description of the whole surface. */
const behind = new WeakMap<object, { needs: RouteNeeds; route: MethodRoute }>();

/** @returns who may come to a route and which method it stands before; null for a route that stands before none */
export function methodBehind(handler: object): { needs: RouteNeeds; route: MethodRoute } | null {
  return behind.get(handler) ?? null;
}

/** @returns a handler that authenticates, reads the parameters, and runs the method in the gate or the Worker */
export function methodRoute(needs: RouteNeeds, route: MethodRoute): Handler<HttpEnv> {
  const handler: Handler<HttpEnv> = async (c) => {
    const passed = await authenticate(c, needs);
    const params = await beforeTheHop(c, passed, () => route.params(c, passed.body));
    const reply = await run(c, passed, route, params);
    if (!reply.ok) {
      const { code, message: detail, retryAfterMs, data } = reply;
      throw new ProxyError(code, { detail, retryAfterMs, data });
    }
    if (route.statusOf !== undefined) {
      const result = JSON.parse(reply.resultText) as Record<string, unknown>;
      return jsonResponse(c, reply.resultText, route.statusOf(result));
    }
    if (route.shown === undefined) return jsonResponse(c, reply.resultText, route.status ?? 200);
    const shown = await route.shown(c, JSON.parse(reply.resultText) as Record<string, unknown>);
    return jsonResponse(c, JSON.stringify(shown), route.status ?? 200);
  };
  behind.set(handler, { needs, route });
  return handler;
}

async function run(c: Context<HttpEnv>, passed: Passed, route: MethodRoute, params: Params): Promise<WrittenReply> {
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
      const { principal } = passed;
      const { dispatcher } = c.get("runtime");
      await beforeTheHop(c, passed, () => dispatcher.assertPermitted(route.method, principal));
      const named =
        inGateOf === undefined ? null : await beforeTheHop(c, passed, () => namedAgent(memberOf(params, inGateOf)));
      if (named !== null) return inGate(c, passed, named, { kind: "operator", principal }, route, params);
      acceptedByGate(c, passed);
      const reply = await underOperator(principal, { db: c.env.DB, now: Date.now }, (authority) =>
        dispatcher.dispatch(workerContext(c, principal, authority), "http", route.method, params),
      );
      return writtenReply(reply);
    }
  }
}

async function inGate(
  c: Context<HttpEnv>,
  passed: Passed,
  agentDid: AgentDid,
  caller: GateCaller,
  route: MethodRoute,
  params: Params,
): Promise<WrittenReply> {
  const { method } = route;
  const { replies } = await callGate(c, passed, agentDid, {
    caller,
    surface: "http",
    ...(route.waitMs === undefined ? {} : { waitMs: route.waitMs(c) }),
    calls: [params instanceof JsonText ? { method, paramsText: params.json } : { method, params }],
  });
  return replies[0] ?? { ok: false, code: "PROXY_INTERNAL", message: "No answer." };
}
