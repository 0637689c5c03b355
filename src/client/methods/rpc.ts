/**
 * Calls of RPC methods over `POST /rpc` (contract §5), one at a time or many in one request.
 *
 * @example
 * ```ts
 * const { paired } = (await agent.call("device.pair.list")) as { paired: unknown[] };
 * const [first, second] = await agent.batch([{ method: "device.pair.list" }, { method: "no/such/method" }]);
 * console.log(Array.isArray(paired), first.ok, second.ok ? "" : second.error.code); // true true RPC_-32601
 *
 * // What is passed on keeps its own text, to the byte, both ways.
 * const params = new JsonText('{"id":12345678901234567890}');
 * const created = await agent.callText("task/create", { agentDid: agent.agentDid, params });
 * console.log(typeof created); // string
 * ```
 */
import * as z from "zod/mini";
import { RPC_BATCH_MAX } from "../../wire/rpc.ts";
import { rawMember } from "../../wire/json-text.ts";
import { jsonTextOf } from "../transport/arguments.ts";
import { RpcError, UnexpectedAnswerError } from "../transport/errors.ts";
import { type Answer, type Call, parseAnswer } from "../transport/http-call.ts";

/** Sends one authorized call. @throws as `Caller.call` does */
export type Send = (call: Call) => Promise<Answer>;

/** What a method is given: JSON values, in which a `JsonText` keeps its own text to the byte. */
export type MethodParams = Readonly<Record<string, unknown>>;

/**
 * Calls a method.
 *
 * @returns its result
 * @throws RpcError when the method fails, ProblemError when the credential does, InvalidArgumentError
 */
export type CallMethod = (method: string, params?: MethodParams) => Promise<unknown>;

/**
 * Calls a method, for what is in its result to the byte: numbers beyond 2^53 and names that stand twice survive no parser.
 *
 * @returns the JSON text of its result, as the server wrote it
 * @throws as {@link CallMethod}
 */
export type CallText = (method: string, params?: MethodParams) => Promise<string>;

/** One call of a batch. */
export type MethodCall = { readonly method: string; readonly params?: MethodParams | undefined };

/** What became of one call of a batch. */
export type Outcome =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: RpcError };

/**
 * Calls methods in one request, one after the other in the order given; a call that fails does not keep the others from
 * running, unless it ends the caller's own authority.
 *
 * @param calls at most 50
 * @returns what became of each, in the same order
 * @throws RangeError for more than 50, ProblemError when the credential fails, RpcError when the whole batch is refused
 */
export type CallBatch = <const C extends readonly MethodCall[]>(calls: C) => Promise<{ [I in keyof C]: Outcome }>;

const response = z.object({
  id: z.optional(z.unknown()),
  result: z.optional(z.unknown()),
  error: z.optional(
    z.object({
      code: z.number(),
      message: z.string(),
      data: z.optional(z.unknown()),
    }),
  ),
});
const responses = z.array(response);
const errorData = z.object({
  code: z.optional(z.string()),
  retryable: z.optional(z.boolean()),
  retryAfterMs: z.optional(z.number()),
});

type Response = z.infer<typeof response>;

/** @param send how a request of this client is authorized */
export function createCallMethod(send: Send): CallMethod {
  return async (method, params = {}) => resultOf(await requestOne(send, method, params));
}

/** @param send how a request of this client is authorized */
export function createCallText(send: Send): CallText {
  return async (method, params = {}) => {
    const answer = await requestOne(send, method, params);
    resultOf(answer);
    const result = rawMember(answer.text, "result");
    if (!result.ok || result.value === null) throw new UnexpectedAnswerError("the answer has no one result", null);
    return result.value;
  };
}

/** @param send how a request of this client is authorized */
export function createCallBatch(send: Send): CallBatch {
  const batch = async (calls: readonly MethodCall[]): Promise<Outcome[]> => {
    if (calls.length > RPC_BATCH_MAX) throw new RangeError(`a batch has at most ${RPC_BATCH_MAX} calls`);
    if (calls.length === 0) return [];
    const requests = calls.map(({ method, params = {} }, index) => ({ jsonrpc: "2.0", id: index, method, params }));
    const { json } = await send({ method: "POST", path: "/rpc", body: jsonTextOf("params", requests) });
    // A batch that is refused as a whole has a single answer.
    const refused = Array.isArray(json) ? null : outcomeOf(parseAnswer(response, json));
    if (refused?.ok === false) throw refused.error;
    const byId = new Map(parseAnswer(responses, json).map((each) => [each.id, each]));
    return calls.map((_call, index) => {
      const answer = byId.get(index);
      if (answer === undefined) throw new UnexpectedAnswerError("a call of the batch has no answer", null);
      return outcomeOf(answer);
    });
  };
  // One answer a call, in order: what the mapped type says.
  return batch as CallBatch;
}

function requestOne(send: Send, method: string, params: MethodParams): Promise<Answer> {
  const body = jsonTextOf("params", { jsonrpc: "2.0", id: 1, method, params });
  return send({ method: "POST", path: "/rpc", body });
}

/** @throws RpcError when the method failed */
function resultOf({ json }: Answer): unknown {
  const outcome = outcomeOf(parseAnswer(response, json));
  if (!outcome.ok) throw outcome.error;
  return outcome.result;
}

function outcomeOf({ result, error }: Response): Outcome {
  if (error === undefined) {
    if (result === undefined) throw new UnexpectedAnswerError("the answer has neither result nor error", null);
    return { ok: true, result };
  }
  const data = errorData.safeParse(error.data);
  return {
    ok: false,
    error: new RpcError({
      code: (data.success ? data.data.code : undefined) ?? `RPC_${error.code}`,
      message: error.message,
      number: error.code,
      data: error.data ?? null,
      retryable: data.success && data.data.retryable === true,
      retryAfterMs: (data.success ? data.data.retryAfterMs : undefined) ?? null,
    }),
  };
}
