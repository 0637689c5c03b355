/** A JSON-RPC body from text to text: what runs in a gate for its callers, and in the Worker for the operator. */
import type { Reply, WrittenReply } from "../call/reply.ts";
import { JsonText } from "../wire/json-text.ts";
import { nestedTooDeep, nestsDeeperThan, NESTING_MAX } from "../wire/nesting.ts";
import { ProxyError } from "../wire/problem.ts";
import { parseRpcBody, RPC_ERROR, type RpcCall, rpcErrorObject, rpcFailure, rpcSuccess } from "../wire/rpc.ts";
import { runInOrder } from "./batch.ts";
import { refusal } from "./dispatcher.ts";

/** Runs one call of a body; its parameters are as their sender wrote them. */
export type RunCall = (call: { method: string; params: JsonText | undefined }) => Promise<Reply>;

/**
 * Runs the calls of a body in their order.
 *
 * @param text the body, whatever it is; nothing of it has been looked at
 * @returns the text of the response, and null where there is none: nothing but notifications. A body that is no request has
 *          the one response that says so
 */
export async function answerRpcBody(text: string, run: RunCall): Promise<string | null> {
  const body = parseRpcBody(text);
  if (!body.ok) return body.error;
  const { batch, calls } = body.value;
  const callable = calls.filter((call): call is RpcCall => call.kind !== "invalid");
  const replies = await runInOrder(callable, ({ method, paramsText }): Promise<Reply> => {
    // Deeper is beyond what a stack holds: nobody runs it, and it counts for nobody.
    if (paramsText !== undefined && nestsDeeperThan(paramsText, NESTING_MAX)) {
      return Promise.resolve(refusal(nestedTooDeep("params")));
    }
    return run({ method, params: paramsText === undefined ? undefined : new JsonText(paramsText) });
  });
  const responses: string[] = [];
  for (const call of calls) {
    if (call.kind === "invalid") responses.push(call.responseText);
    else if (call.kind === "call") responses.push(responseText(call, replies[callable.indexOf(call)]));
  }
  if (responses.length === 0) return null;
  return batch ? `[${responses.join(",")}]` : (responses[0] ?? null);
}

function responseText({ idText }: RpcCall, reply: WrittenReply | undefined): string {
  if (reply === undefined) return rpcFailure(idText, { code: RPC_ERROR.internal, message: "Internal error" });
  if (reply.ok) return rpcSuccess(idText, reply.resultText);
  if (reply.unknownMethod === true) {
    return rpcFailure(idText, { code: RPC_ERROR.methodNotFound, message: "Method not found" });
  }
  const { code, message: detail, retryAfterMs, data } = reply;
  return rpcFailure(idText, rpcErrorObject(new ProxyError(code, { detail, retryAfterMs, data })));
}
