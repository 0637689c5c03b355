/** Calls of RPC methods over `POST /rpc` (contract §5). */
import * as z from "zod/mini";
import { type Call, parseAnswer } from "./caller.ts";
import { RpcError, UnexpectedAnswerError } from "./errors.ts";

/** Sends one authorized call and gives the JSON of its answer. */
export type Send = (call: Call) => Promise<unknown>;

/**
 * Calls a method.
 *
 * @returns its result
 * @throws RpcError when the method fails, ProblemError when the credential does
 */
export type CallMethod = (method: string, params?: Readonly<Record<string, unknown>>) => Promise<unknown>;

const response = z.object({
  result: z.optional(z.unknown()),
  error: z.optional(
    z.object({
      code: z.number(),
      message: z.string(),
      data: z.optional(z.unknown()),
    }),
  ),
});
const errorData = z.object({
  code: z.optional(z.string()),
  retryable: z.optional(z.boolean()),
  retryAfterMs: z.optional(z.number()),
});

export function createCallMethod(send: Send): CallMethod {
  return async (method, params = {}) => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    const { result, error } = parseAnswer(response, await send({ method: "POST", path: "/rpc", body }));
    if (error === undefined) {
      if (result === undefined) throw new UnexpectedAnswerError("the answer has neither result nor error", null);
      return result;
    }
    const data = errorData.safeParse(error.data);
    throw new RpcError({
      code: (data.success ? data.data.code : undefined) ?? `RPC_${error.code}`,
      message: error.message,
      number: error.code,
      data: error.data ?? null,
      retryable: data.success && data.data.retryable === true,
      retryAfterMs: (data.success ? data.data.retryAfterMs : undefined) ?? null,
    });
  };
}
