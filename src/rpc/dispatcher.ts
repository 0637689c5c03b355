/** One dispatcher, behind `/rpc`, the socket's `req` frames and the HTTP routes alike. */
import { type Principal, scopesOf } from "../authority/principal.ts";
import type { CallContext } from "../call/context.ts";
import type { RefusedReply, Reply } from "../call/reply.ts";
import { errorFields } from "../telemetry/log.ts";
import { JsonText, parseKeeping } from "../wire/json-text.ts";
import { nestedTooDeep, nestsDeeperThan, NESTING_MAX, valueNestsDeeperThan } from "../wire/nesting.ts";
import { ProxyError, proxyErrorFrom } from "../wire/problem.ts";
import type { Method } from "./method.ts";

export type Dispatcher = {
  /** @param params a value, or its own text as `JsonText`, which members that are passed on keep */
  dispatch(ctx: CallContext, surface: Method["surface"], name: string, params: unknown): Promise<Reply>;
  /** Everything that can be called. */
  readonly methods: readonly Method[];
  /** Whether a method runs in an agent's gate alone. */
  runsInGate(name: string): boolean;
  /** Before a gate is asked for one. @throws ProxyError PROXY_AUTH_FORBIDDEN for a method that this principal may not call */
  assertPermitted(name: string, principal: Principal): void;
};

/** @throws TypeError when two methods have one name. */
export function createDispatcher(methods: readonly Method[]): Dispatcher {
  const byName = new Map<string, Method>();
  for (const method of methods) {
    if (byName.has(method.name)) throw new TypeError(`two methods are named ${method.name}`);
    byName.set(method.name, method);
  }

  const dispatch: Dispatcher["dispatch"] = async (ctx, surface, name, params) => {
    const method = byName.get(name);
    if (method === undefined || method.surface !== surface) {
      return {
        ...refusal(new ProxyError("PROXY_BAD_REQUEST", { detail: "There is no such method." })),
        unknownMethod: true,
      };
    }
    const startedMs = ctx.now();
    const log = ctx.log.with({
      method: name,
      principal: ctx.principal.kind,
      agentDid: ctx.agentDid,
      requestId: ctx.requestId,
    });
    try {
      const result = await run(ctx, method, params);
      log.info("call.done", { durationMs: ctx.now() - startedMs });
      return { ok: true, result };
    } catch (thrown) {
      const error = proxyErrorFrom(thrown);
      const fields = { code: error.code, reason: error.reason, durationMs: ctx.now() - startedMs };
      // 507 is the caller's own doing: it has used up its room.
      if (error.status >= 500 && error.status !== 507)
        log.error("call.failed", { ...fields, ...errorFields(error.cause ?? error) });
      else log.info("call.refused", fields);
      return refusal(error);
    }
  };
  return {
    dispatch,
    methods,
    runsInGate: (name) => byName.get(name)?.inGate === true,
    assertPermitted(name, principal) {
      const method = byName.get(name);
      if (method !== undefined && !mayCall(method, principal)) throw notPermitted();
    },
  };
}

async function run(ctx: CallContext, method: Method, params: unknown): Promise<unknown> {
  if (!mayCall(method, ctx.principal)) throw notPermitted();

  const parsed = method.params.safeParse(readParams(method, params));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const member = issue?.path.map(String).join(".") || "body";
    throw badParams(method, `${member}: ${issue?.message ?? "is not what this takes"}`.slice(0, 300));
  }
  ctx.authority.assertCurrent();
  const result = await method.handler(ctx, parsed.data);
  ctx.authority.assertCurrent();

  const checked = method.result.safeParse(result);
  if (!checked.success) {
    const where = checked.error.issues[0]?.path.map(String).join(".") ?? "";
    throw new ProxyError("PROXY_INTERNAL", { reason: `the result of ${method.name} breaks its schema at "${where}"` });
  }
  return checked.data;
}

function mayCall({ permission: { callers, roles, scope } }: Method, principal: Principal): boolean {
  if (!callers.includes(principal.kind)) return false;
  if (principal.kind === "operator" && !roles.includes(principal.role)) return false;
  return scope === null || scopesOf(principal).includes(scope);
}

function notPermitted(): ProxyError {
  return new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "method not permitted to this principal" });
}

/**
 * Parameters as their schema sees them.
 *
 * @throws ProxyError for text that is no JSON, that nests too deep, or in which a member that is passed on stands twice
 */
function readParams(method: Method, params: unknown): unknown {
  const keeps = method.keeps ?? [];
  if (!(params instanceof JsonText)) {
    if (valueNestsDeeperThan(params, NESTING_MAX)) throw nestedTooDeep("params", method.invalidParams);
    return keeps.length === 0 ? (params ?? {}) : withTexts(params ?? {}, keeps);
  }
  if (nestsDeeperThan(params.json, NESTING_MAX)) throw nestedTooDeep("params", method.invalidParams);
  const parsed = parseKeeping(params.json, keeps);
  if (parsed.ok) return parsed.value;
  switch (parsed.error.kind) {
    case "not-json":
      throw badParams(method, "The body must be JSON in UTF-8.");
    case "no-object":
      throw badParams(method, "body: must be a JSON object");
    case "duplicate":
      throw badParams(method, `${parsed.error.member}: stands there twice`);
  }
}

/** A value that never had a text of its own gets one. */
function withTexts(params: object, keeps: readonly string[]): Record<string, unknown> {
  const members: Record<string, unknown> = { ...params };
  for (const name of keeps) {
    const value = members[name];
    if (value !== undefined && !(value instanceof JsonText)) members[name] = new JsonText(JSON.stringify(value));
  }
  return members;
}

function badParams(method: Method, detail: string): ProxyError {
  return new ProxyError(method.invalidParams ?? "PROXY_BAD_REQUEST", { detail });
}

/** The plain form of a refusal. */
export function refusal(error: ProxyError): RefusedReply {
  return {
    ok: false,
    code: error.code,
    message: error.message,
    ...(error.retryAfterMs === null ? {} : { retryAfterMs: error.retryAfterMs }),
    ...(Object.keys(error.data).length === 0 ? {} : { data: error.data }),
  };
}
