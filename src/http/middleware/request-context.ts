/** What every request has: an id, the isolate's runtime, a log of its own; and where every error becomes its answer. */
import type { Context, MiddlewareHandler } from "hono";
import type { ChainScope } from "../../auth/chain.ts";
import type { Decision } from "../../auth/decision.ts";
import type { Config, SettingProblem } from "../../config.ts";
import type { Bookmarks } from "../../database/session.ts";
import { BadSettings, type Runtime, runtimeOf } from "../../runtime.ts";
import { createLog, errorFields, type Log } from "../../telemetry/log.ts";
import { countedAddress } from "../../wire/address.ts";
import { isPublicName, isReservedName } from "../../wire/host-names.ts";
import { VERSION, VERSION_HEADER } from "../../wire/version.ts";
import { DATABASE_OUT_OF_REACH, problemResponse, ProxyError, proxyErrorFrom } from "../../wire/problem.ts";

export type HttpEnv = {
  Bindings: Env;
  /** `decision`: what the chain decided, once it has; for the numbers. */
  Variables: {
    requestId: string;
    /** The caller's, as limits count it and the audit records it; null where the platform gives none. */
    address: string | null;
    log: Log;
    runtime: Runtime;
    decision?: Decision;
    bookmarks?: Bookmarks;
  };
};

const REQUEST_ID_PATTERN = /^[A-Za-z0-9._:-]{8,128}$/;

/** Accepts the caller's request id where it has the form (contract §3), else makes one; echoes it on every answer. */
export const requestContext: MiddlewareHandler<HttpEnv> = async (c, next) => {
  const offered = c.req.header("X-Request-Id");
  const requestId = offered !== undefined && REQUEST_ID_PATTERN.test(offered) ? offered : crypto.randomUUID();
  const log = createLog({ requestId });
  c.set("requestId", requestId);
  c.set("address", countedAddress(c.req.header("CF-Connecting-IP") ?? ""));
  c.set("log", log);
  if (!URL.canParse(c.req.url)) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "Host names no host." });
  try {
    const runtime = runtimeOf(c.env);
    const problem = issuerProblem(runtime.config, c.req.url);
    if (problem !== null) throw new BadSettings([problem]);
    c.set("runtime", runtime);
  } catch (error) {
    if (!(error instanceof BadSettings)) throw error;
    for (const { setting, problem } of error.problems) log.error("setting.refused", { setting, problem });
    return new Response(null, {
      status: 503,
      headers: { "Retry-After": "30", "X-Request-Id": requestId, [VERSION_HEADER]: VERSION },
    });
  }
  await next();
  if (c.res.status !== 101) {
    if (!c.res.headers.has("X-Request-Id")) c.res.headers.set("X-Request-Id", requestId);
    c.res.headers.set(VERSION_HEADER, VERSION);
  }
  return undefined;
};

/**
 * DIDs are for life, and their authority is the host of the issuer: an installation that the public reaches issues none under a
 * name that can be nobody's, such as the one that stands in `wrangler.toml` to begin with.
 */
function issuerProblem(config: Config, url: string): SettingProblem | null {
  const { registryUrl, registryAuthority: authority, development } = config;
  if (registryUrl !== "embedded" || development || !isReservedName(authority)) return null;
  if (!isPublicName(new URL(url).hostname)) return null;
  return { setting: "REGISTRY_ISSUER", problem: `${authority} can be nobody's own; choose a name that is yours` };
}

/** The one place where what was thrown becomes an answer: a refusal says its code, anything else only that it failed. */
export function errorResponse(thrown: Error, c: Context<HttpEnv>): Response {
  const error = proxyErrorFrom(thrown);
  const requestId = c.get("requestId") ?? crypto.randomUUID();
  const isFault = error.code === "PROXY_INTERNAL" || error.reason === DATABASE_OUT_OF_REACH;
  if (isFault) (c.get("log") ?? createLog({ requestId })).error("request.failed", errorFields(error.cause ?? error));
  return problemResponse(error, requestId);
}

/** What the chain needs of this request. */
export function chainScope(c: Context<HttpEnv>): ChainScope {
  return {
    now: Date.now,
    address: c.get("address"),
    log: c.get("log"),
    background: (work) => c.executionCtx.waitUntil(work),
    decided: (decision) => c.set("decision", decision),
  };
}
