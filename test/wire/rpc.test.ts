import { describe, expect, test } from "vitest";
import { ProxyError } from "../../src/wire/problem.ts";
import { parseRpcBody, peekMethod, RPC_ERROR, rpcErrorObject, rpcSuccess } from "../../src/wire/rpc.ts";

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
  if (!parsed.ok) return JSON.parse(parsed.error) as unknown;
  const first = parsed.value.calls[0];
  return first?.kind === "invalid" ? (JSON.parse(first.responseText) as unknown) : null;
};

describe("the body of an RPC", () => {
  test.each(["", "{", "undefined", '{"jsonrpc":"2.0",}'])(
    "that is no JSON (%j) is a parse error without an id",
    (text) => {
      const parsed = parseRpcBody(text);
      expect(parsed.ok ? null : JSON.parse(parsed.error)).toMatchObject({
        jsonrpc: "2.0",
        id: null,
        error: { code: RPC_ERROR.parse },
      });
    },
  );

  test.each([
    ["an empty batch", []],
    ["a batch of 51", Array.from({ length: 51 }, () => call())],
  ])("that is %s gets one error", (_what, body) => {
    expect(parse(body).ok).toBe(false);
    expect(failure(body)).toMatchObject({ id: null, error: { code: RPC_ERROR.invalidRequest } });
  });

  test("may hold 50 calls, in their order", () => {
    const parsed = parse(Array.from({ length: 50 }, (_, id) => call({ id })));
    expect(parsed.ok && parsed.value.batch).toBe(true);
    expect(parsed.ok && parsed.value.calls.map((each) => each.kind === "call" && each.idText)).toEqual(
      Array.from({ length: 50 }, (_, id) => String(id)),
    );
  });

  test.each([
    "1",
    "0",
    "-0",
    "-1",
    "1.5",
    "1.0",
    "1.0000000000000000001",
    "1e-400",
    "1e400",
    "12345678901234567890",
    '""',
    '"a"',
    '"\\u0061\\/"',
    "null",
  ])("is a call whose id %s keeps its own text, as its parameters do", (idText) => {
    for (const paramsText of ['{ "x" : 1e400, "x" : -0 }', "[ 12345678901234567890 ]"]) {
      const single = `{"jsonrpc":"2.0","params": ${paramsText} ,"id" :${idText} ,"method":"task/get"}`;
      const parsed = { kind: "call", idText, method: "task/get", paramsText };
      expect(parseRpcBody(single)).toEqual({ ok: true, value: { batch: false, calls: [parsed] } });
      expect(parseRpcBody(`[ ${single} , ${single}]`)).toEqual({
        ok: true,
        value: { batch: true, calls: [parsed, parsed] },
      });
    }
    expect(rpcSuccess(idText, "-0")).toBe(`{"jsonrpc":"2.0","id":${idText},"result":-0}`);
  });

  test.each(["id", "method", "params", "jsonrpc", "\\u0069d"])(
    "in which %s stands twice is an invalid request",
    (name) => {
      const text = `{"jsonrpc":"2.0","id":1,"method":"m","params":{},"${name}":1}`;
      const parsed = parseRpcBody(text);
      expect(parsed.ok && parsed.value.calls[0]?.kind).toBe("invalid");
    },
  );

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

describe("a glance at a body's first method", () => {
  test.each([
    ['{"jsonrpc":"2.0","id":1,"method":"device.token.revoke","params":{"method":"x"}}', "device.token.revoke"],
    ['[{"params":{"method":"x"},"method":"task/get"},{"method":"y"}]', "task/get"],
    ['{"params":{"method":"device.token.revoke"}}', null],
    ['{"method":"a","method":"b"}', null],
    ['{"method":"\\u0061"}', null],
    ["", null],
    ["[", null],
    ['{"method"', null],
    ['{"method":', null],
    [`{"method":"a","x":"${"x".repeat(5_000)}"}`, null],
  ])("of %s finds %s", (text, method) => {
    expect(peekMethod(text)).toBe(method);
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
