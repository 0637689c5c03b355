/** JSON-RPC 2.0 as `/rpc` speaks it, contract §5: requests in, responses out. */
import { isRetryable, type ProblemCode, PROBLEMS, type ProxyError } from "./problem.ts";
import { err, ok, type Result } from "./result.ts";

/** Most calls in one batch. */
export const RPC_BATCH_MAX = 50;

/** Error codes of JSON-RPC 2.0 §5.1. */
export const RPC_ERROR = {
  parse: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internal: -32603,
} as const;

/** What a request may be told apart by. */
export type RpcId = string | number | null;
/** One call. A notification has no `id` and gets no response. */
export type RpcCall = {
  readonly kind: "call" | "notification";
  readonly id: RpcId;
  readonly method: string;
  readonly params: unknown;
};
/** Something in the place of a call that is none; it gets the response. */
export type RpcInvalid = { readonly kind: "invalid"; readonly response: RpcErrorResponse };
/** What a body holds: one call, or a batch to be run in its order and answered as an array. */
export type RpcBody = { readonly batch: boolean; readonly calls: readonly (RpcCall | RpcInvalid)[] };

export type RpcErrorObject = { readonly code: number; readonly message: string; readonly data?: unknown };
export type RpcResultResponse = { readonly jsonrpc: "2.0"; readonly id: RpcId; readonly result: unknown };
export type RpcErrorResponse = { readonly jsonrpc: "2.0"; readonly id: RpcId; readonly error: RpcErrorObject };
export type RpcResponse = RpcResultResponse | RpcErrorResponse;

/**
 * @param text the body of a `POST /rpc`
 * @returns what to run, or the one response to a body that is no JSON, an empty batch, or one of more than 50
 */
export function parseRpcBody(text: string): Result<RpcBody, RpcErrorResponse> {
  let body: unknown;
  try {
    body = JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return err(rpcFailure(null, RPC_ERROR.parse, "Parse error"));
    throw error;
  }
  if (!Array.isArray(body)) return ok({ batch: false, calls: [parseCall(body)] });
  if (body.length === 0) return err(rpcFailure(null, RPC_ERROR.invalidRequest, "Invalid Request: an empty batch"));
  if (body.length > RPC_BATCH_MAX) {
    return err(
      rpcFailure(null, RPC_ERROR.invalidRequest, `Invalid Request: a batch has at most ${RPC_BATCH_MAX} calls`),
    );
  }
  return ok({ batch: true, calls: body.map(parseCall) });
}

function parseCall(value: unknown): RpcCall | RpcInvalid {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return invalid(null, "a call is an object");
  const call = value as { jsonrpc?: unknown; id?: unknown; method?: unknown; params?: unknown };
  const hasId = Object.hasOwn(call, "id");
  if (hasId && !isRpcId(call.id)) return invalid(null, "id is text, null, or a number that survives a round trip");
  const id = hasId ? (call.id as RpcId) : null;
  if (call.jsonrpc !== "2.0") return invalid(id, 'jsonrpc is "2.0"');
  if (typeof call.method !== "string") return invalid(id, "method is text");
  if (Object.hasOwn(call, "params") && (typeof call.params !== "object" || call.params === null)) {
    return invalid(id, "params is an object or an array");
  }
  return { kind: hasId ? "call" : "notification", id, method: call.method, params: call.params };
}

function isRpcId(id: unknown): id is RpcId {
  if (typeof id === "number") return Number.isFinite(id) && (!Number.isInteger(id) || Number.isSafeInteger(id));
  return id === null || typeof id === "string";
}

function invalid(id: RpcId, problem: string): RpcInvalid {
  return { kind: "invalid", response: rpcFailure(id, RPC_ERROR.invalidRequest, `Invalid Request: ${problem}`) };
}

/** @returns the response to a call that succeeded. */
export function rpcSuccess(id: RpcId, result: unknown): RpcResultResponse {
  return { jsonrpc: "2.0", id, result };
}

/** @returns the response to a call that failed, with a code of JSON-RPC itself. */
export function rpcFailure(id: RpcId, code: number, message: string, data?: unknown): RpcErrorResponse {
  return { jsonrpc: "2.0", id, error: data === undefined ? { code, message } : { code, message, data } };
}

/**
 * @returns the error object of a refusal: an application error (−32001 …) whose `data.code` is the problem code,
 *          or one of JSON-RPC's own where it has one for it
 */
export function rpcErrorObject(error: ProxyError): RpcErrorObject {
  const { code, retryAfterMs } = error;
  const retryable = isRetryable(code);
  return {
    code: applicationCode(code),
    message: error.message,
    data: {
      ...error.data,
      code,
      ...(retryable ? { retryable } : {}),
      ...(retryAfterMs === null ? {} : { retryAfterMs }),
    },
  };
}

function applicationCode(code: ProblemCode): number {
  switch (PROBLEMS[code].status) {
    case 400:
      return RPC_ERROR.invalidParams;
    case 401:
      return -32001;
    case 403:
      return -32003;
    case 404:
      return -32004;
    case 409:
      return -32009;
    case 410:
      return -32010;
    case 413:
      return -32013;
    case 429:
      return -32029;
    case 503:
      return -32053;
    case 507:
      return -32057;
    default:
      return code === "PROXY_INTERNAL" ? RPC_ERROR.internal : -32015;
  }
}
