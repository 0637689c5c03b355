import { describe, expect, test } from "vitest";
import { ProxyError } from "../../src/wire/problem.ts";
import { parseRpcBody, RPC_ERROR, rpcErrorObject } from "../../src/wire/rpc.ts";

const call = (change: Record<string, unknown> = {}) => ({
  jsonrpc: "2.0",
  id: 1,
  method: "task/get",
  params: {},
  ...change,
});
const parse = (body: unknown) => parseRpcBody(JSON.stringify(body));
const failure = (body: unknown) => {
  const parsed = parse(body);
  if (!parsed.ok) return parsed.error;
  const first = parsed.value.calls[0];
  return first?.kind === "invalid" ? first.response : null;
};

describe("the body of an RPC", () => {
  test.each(["", "{", "undefined", '{"jsonrpc":"2.0",}'])(
    "that is no JSON (%j) is a parse error without an id",
    (text) => {
      expect(parseRpcBody(text)).toMatchObject({
        ok: false,
        error: { jsonrpc: "2.0", id: null, error: { code: RPC_ERROR.parse } },
      });
    },
  );

  test.each([
    ["an empty batch", []],
    ["a batch of 51", Array.from({ length: 51 }, () => call())],
  ])("that is %s gets one error", (_what, body) => {
    expect(parse(body)).toMatchObject({ ok: false, error: { id: null, error: { code: RPC_ERROR.invalidRequest } } });
  });

  test("may hold 50 calls, in their order", () => {
    const parsed = parse(Array.from({ length: 50 }, (_, id) => call({ id })));
    expect(parsed.ok && parsed.value.batch).toBe(true);
    expect(parsed.ok && parsed.value.calls.map((each) => each.kind === "call" && each.id)).toEqual(
      Array.from({ length: 50 }, (_, id) => id),
    );
  });

  test.each([1, 0, -1, 1.5, "", "a", null])("is a call whose id %j is echoed", (id) => {
    const parsed = parse(call({ id }));
    expect(parsed).toMatchObject({
      ok: true,
      value: { batch: false, calls: [{ kind: "call", id, method: "task/get", params: {} }] },
    });
  });

  test("without an id is a notification", () => {
    expect(parse({ jsonrpc: "2.0", method: "m" })).toMatchObject({
      ok: true,
      value: { calls: [{ kind: "notification" }] },
    });
  });

  test.each([
    ["another version", call({ jsonrpc: "1.0" }), 1],
    ["no version", call({ jsonrpc: undefined }), 1],
    ["no method", call({ method: undefined }), 1],
    ["a method that is no text", call({ method: 1 }), 1],
    ["params that are text", call({ params: "x" }), 1],
    ["params that are null", call({ params: null }), 1],
    ["an id that is an object", call({ id: {} }), null],
    ["an id that is true", call({ id: true }), null],
    ["an id too large to be echoed", call({ id: 2 ** 60 }), null],
    ["a number in the place of a call", 1, null],
    ["null in the place of a call", null, null],
  ])("with %s is an invalid request", (_what, body, id) => {
    expect(failure(body)).toMatchObject({ id, error: { code: RPC_ERROR.invalidRequest } });
  });

  test("runs the good calls of a batch beside a bad one", () => {
    const parsed = parse([1, call({ id: 2 }), []]);
    expect(parsed.ok && parsed.value.calls.map((each) => each.kind)).toEqual(["invalid", "call", "invalid"]);
  });
});

describe("the error object of a refusal", () => {
  test.each([
    ["PROXY_BAD_REQUEST", RPC_ERROR.invalidParams],
    ["PROXY_INTERNAL", RPC_ERROR.internal],
    ["PROXY_AUTH_REVOKED", -32001],
    ["PROXY_AUTH_FORBIDDEN", -32003],
    ["PROXY_NOT_FOUND", -32004],
  ] as const)("of %s has the code %d and names it", (code, number) => {
    expect(rpcErrorObject(new ProxyError(code, { reason: "secret" }))).toEqual({
      code: number,
      message: expect.any(String) as string,
      data: { code },
    });
  });

  test("says when to try again, and what else the handler tells", () => {
    const error = new ProxyError("AUTHZ_UNAVAILABLE", { data: { taskId: "t1" }, retryAfterMs: 500 });
    expect(rpcErrorObject(error).data).toEqual({
      taskId: "t1",
      code: "AUTHZ_UNAVAILABLE",
      retryable: true,
      retryAfterMs: 500,
    });
  });
});
