/** `POST /rpc`: JSON-RPC 2.0 over HTTP. A failed authentication is a problem document; everything else is a 200. Contract §5. */
import type { Context, Handler } from "hono";
import type { Passed } from "../../auth/passed.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import type { Reply } from "../../call/reply.ts";
import { runInOrder } from "../../rpc/batch.ts";
import { refusal } from "../../rpc/dispatcher.ts";
import { nestedTooDeep, NESTING_MAX, valueNestsDeeperThan } from "../../wire/nesting.ts";
import { ProxyError } from "../../wire/problem.ts";
import {
  parseRpcBody,
  RPC_ERROR,
  type RpcCall,
  rpcErrorObject,
  rpcFailure,
  type RpcResponse,
  rpcSuccess,
} from "../../wire/rpc.ts";
import { apiKeyCallerOf } from "../authenticate-api-key.ts";
import { authenticate } from "../authenticate.ts";
import { BOOKMARK_HEADER, readBookmark } from "../bookmark.ts";
import { acceptedByGate, callGate, gateCallerOf, namedAgent } from "../gate-client.ts";
import type { HttpEnv } from "../middleware/request-context.ts";
import { workerContext } from "../operator-context.ts";

const NEEDS: RouteNeeds = {
  route: "rpc",
  accepts: ["agent", "device", "shared", "apiKey", "operator"],
  access: true,
  recipient: false,
};

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const rpc: Handler<HttpEnv> = async (c) => {
  const passed = await authenticate(c, NEEDS);

  const bookmarks = readBookmark(c);
  const body = parseRpcBody(textOf(passed.body));
  const calls =
    bookmarks !== null && body.ok ? body.value.calls.filter((call): call is RpcCall => call.kind !== "invalid") : [];
  // What nests too deep cannot cross to a gate: it is answered here.
  const runnable = calls.filter(({ params }) => !valueNestsDeeperThan(params, NESTING_MAX));
  // Also where there is nothing to run: who calls is decided before anything is said of the request.
  const replies = await runAll(c, passed, runnable);
  if (bookmarks === null)
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: `${BOOKMARK_HEADER} is none that this proxy gave out.` });
  if (bookmarks.latest !== null) c.header(BOOKMARK_HEADER, bookmarks.latest);
  if (!body.ok) return c.json(body.error, 200, { "Cache-Control": "no-store" });

  const answers = new Map<RpcCall, Reply | undefined>(calls.map((call) => [call, refusal(nestedTooDeep("params"))]));
  for (const [index, call] of runnable.entries()) answers.set(call, replies[index]);
  const responses: RpcResponse[] = [];
  for (const call of body.value.calls) {
    if (call.kind === "invalid") responses.push(call.response);
    else if (call.kind === "call") responses.push(responseOf(call, answers.get(call)));
  }
  if (responses.length === 0) return c.body(null, 204);
  return c.json(body.value.batch ? responses : responses[0], 200, { "Cache-Control": "no-store" });
};

/** What is not UTF-8 is not JSON either. */
function textOf(body: Uint8Array): string {
  try {
    return textDecoder.decode(body);
  } catch (error) {
    if (error instanceof TypeError) return "";
    throw error;
  }
}

async function runAll(c: Context<HttpEnv>, passed: Passed, calls: readonly RpcCall[]): Promise<Reply[]> {
  if (passed.kind === "operator") {
    acceptedByGate(c, passed);
    return runInOrder(calls, (call) => runForOperator(c, passed, call));
  }
  const at = await callerOf(c, passed);
  if (at === null) throw new ProxyError("PROXY_AUTH_INVALID_TOKEN");
  return callGate(c, passed, at.agentDid, {
    caller: at.caller,
    surface: "rpc",
    calls: calls.map(({ method, params }) => ({ method, params })),
  });
}

function callerOf(c: Context<HttpEnv>, passed: Exclude<Passed, { kind: "operator" }>) {
  if (passed.kind === "credential" && passed.credential.kind === "apiKey")
    return apiKeyCallerOf(c, passed, passed.credential.keyHash);
  return gateCallerOf(c, passed);
}

/** The operator is in no gate: what belongs into one names its agent. */
async function runForOperator(c: Context<HttpEnv>, passed: Passed, { method, params }: RpcCall): Promise<Reply> {
  const { dispatcher } = c.get("runtime");
  if (!dispatcher.runsInGate(method)) return dispatcher.dispatch(workerContext(c), "rpc", method, params);
  try {
    const agentDid = namedAgent((params as { agentDid?: unknown } | undefined)?.agentDid);
    const [reply] = await callGate(c, passed, agentDid, {
      caller: { kind: "operator" },
      surface: "rpc",
      calls: [{ method, params }],
    });
    return reply ?? refusal(new ProxyError("PROXY_INTERNAL"));
  } catch (error) {
    if (error instanceof ProxyError) return refusal(error);
    throw error;
  }
}

function responseOf(call: RpcCall, reply: Reply | undefined): RpcResponse {
  if (reply === undefined) return rpcFailure(call.id, RPC_ERROR.internal, "Internal error");
  if (reply.ok) return rpcSuccess(call.id, reply.result);
  if (reply.unknownMethod === true) return rpcFailure(call.id, RPC_ERROR.methodNotFound, "Method not found");
  const { code, message: detail, retryAfterMs, data } = reply;
  return { jsonrpc: "2.0", id: call.id, error: rpcErrorObject(new ProxyError(code, { detail, retryAfterMs, data })) };
}
