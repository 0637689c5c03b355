/** JSON-RPC 2.0 as `/rpc` speaks it, contract §5: requests in, responses out. */
import { rawElements, rawMember, rawMembers } from "./json-text.ts";
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

/** One call. A notification has no id and gets no response. Ids and parameters keep their own text. */
export type RpcCall = {
  readonly kind: "call" | "notification";
  /** JSON text of the id, which is echoed as it is; `null` for a notification. */
  readonly idText: string;
  readonly method: string;
  /** JSON text of an object or an array. */
  readonly paramsText: string | undefined;
};
/** Something in the place of a call that is none; it gets the response, as JSON text. */
export type RpcInvalid = { readonly kind: "invalid"; readonly responseText: string };
/** What a body holds: one call, or a batch to be run in its order and answered as an array. */
export type RpcBody = { readonly batch: boolean; readonly calls: readonly (RpcCall | RpcInvalid)[] };

export type RpcErrorObject = { readonly code: number; readonly message: string; readonly data?: unknown };

const NO_ID = "null";

/**
 * @param text the body of a `POST /rpc`
 * @returns what to run, or the text of the one response to a body that is no JSON, an empty batch, or one of more than 50
 */
export function parseRpcBody(text: string): Result<RpcBody, string> {
  let body: unknown;
  try {
    body = JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return err(rpcFailure(NO_ID, { code: RPC_ERROR.parse, message: "Parse error" }));
    throw error;
  }
  if (!Array.isArray(body)) return ok({ batch: false, calls: [parseCall(text, body)] });
  if (body.length === 0) return err(notARequest(NO_ID, "an empty batch"));
  if (body.length > RPC_BATCH_MAX) return err(notARequest(NO_ID, `a batch has at most ${RPC_BATCH_MAX} calls`));
  const elements = rawElements(text);
  return ok({ batch: true, calls: body.map((value, at) => parseCall(elements[at] ?? "", value)) });
}

/** Calls that end an authority are short; a longer body is none of them. */
const PEEKED_MAX = 4_096;

/**
 * Which method the first call of a body names, without parsing the body: before its caller is counted, to find out whether it
 * may draw on the reserve for calls that end an authority.
 *
 * @param text the body, whatever it is
 * @returns the name, or null for a long body and for one in which it cannot be found at a glance
 */
export function peekMethod(text: string): string | null {
  if (text.length > PEEKED_MAX) return null;
  const call = text.trimStart().startsWith("[") ? (rawElements(text)[0] ?? "") : text;
  const method = rawMember(call, "method");
  return method.ok && method.value !== null ? (/^"([\w./-]+)"$/.exec(method.value)?.[1] ?? null) : null;
}

/** @param text the call's own text; `value` is what it stands for */
function parseCall(text: string, value: unknown): RpcCall | RpcInvalid {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return invalid(NO_ID, "a call is an object");
  const call = value as { jsonrpc?: unknown; id?: unknown; method?: unknown; params?: unknown };
  const texts = rawMembers(text, ["id", "jsonrpc", "method", "params"]);
  // Readers disagree on which one counts.
  if (!texts.ok) return invalid(NO_ID, `${texts.error} stands there twice`);
  const { id: idText, params: paramsText } = texts.value;
  if (idText !== null && !isRpcId(call.id)) return invalid(NO_ID, "id is text, a number or null");
  const id = idText ?? NO_ID;
  if (call.jsonrpc !== "2.0") return invalid(id, 'jsonrpc is "2.0"');
  if (typeof call.method !== "string") return invalid(id, "method is text");
  if (paramsText !== null && (typeof call.params !== "object" || call.params === null)) {
    return invalid(id, "params is an object or an array");
  }
  const kind = idText === null ? "notification" : "call";
  return { kind, idText: id, method: call.method, paramsText: paramsText ?? undefined };
}

/** A number of any size and spelling: its text is echoed, not its value. */
function isRpcId(id: unknown): boolean {
  return id === null || typeof id === "string" || typeof id === "number";
}

function invalid(idText: string, problem: string): RpcInvalid {
  return { kind: "invalid", responseText: notARequest(idText, problem) };
}

function notARequest(idText: string, problem: string): string {
  return rpcFailure(idText, { code: RPC_ERROR.invalidRequest, message: `Invalid Request: ${problem}` });
}

/**
 * @param idText JSON text of the call's id
 * @param resultText JSON text of the result
 * @returns the text of the response to a call that succeeded
 */
export function rpcSuccess(idText: string, resultText: string): string {
  return `{"jsonrpc":"2.0","id":${idText},"result":${resultText}}`;
}

/** @returns the text of the response to a call that failed */
export function rpcFailure(idText: string, error: RpcErrorObject): string {
  return `{"jsonrpc":"2.0","id":${idText},"error":${JSON.stringify(error)}}`;
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
