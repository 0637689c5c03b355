import { describe, expect, test } from "vitest";
import { anonymous, createCaller } from "../../../src/client/transport/http-call.ts";
import {
  createInstallationClient,
  ProblemError,
  UnexpectedAnswerError,
  UnreachableError,
} from "../../../src/client/index.ts";
import { BASE_URL, fakeGate, NOON_MS, problem, type Reply } from "../fake-gate.ts";

const get = { method: "GET", path: "/x" } as const;
const answering = (reply: Reply) =>
  createCaller({ baseUrl: BASE_URL, fetch: fakeGate({ "GET /x": () => reply }).fetch });

describe("an answer", () => {
  test("is its JSON, or nothing", async () => {
    expect(await answering({ json: { a: 1 } }).call(get, anonymous)).toEqual({ status: 200, json: { a: 1 } });
    expect(await answering({ status: 204 }).call(get, anonymous)).toEqual({ status: 204, json: undefined });
  });

  test("that refuses is an error with the problem's code, status, request id and the time to wait", async () => {
    const call = answering(problem(429, "PROXY_RATE_LIMIT_EXCEEDED", { "Retry-After": "7" })).call(get, anonymous);
    await expect(call).rejects.toMatchObject({
      name: "ProblemError",
      code: "PROXY_RATE_LIMIT_EXCEEDED",
      message: "says PROXY_RATE_LIMIT_EXCEEDED",
      status: 429,
      requestId: "request-1",
      retryAfterMs: 7_000,
    });
  });

  test.each([
    ["a page of HTML", { text: "<html>" }],
    ["a 404 of another server", { status: 404, text: "not here" }],
    ["a redirect", { status: 302, headers: { Location: "https://elsewhere.example.com/" } }],
    ["a bare 503", { status: 503 }],
  ])("that is %s is not taken for one of a Sallyport", async (_what, reply) => {
    await expect(answering(reply).call(get, anonymous)).rejects.toBeInstanceOf(UnexpectedAnswerError);
  });
});

describe("a call", () => {
  test("to a server that is not there says so", async () => {
    const caller = createCaller({
      baseUrl: BASE_URL,
      fetch: () => Promise.reject(new TypeError("connection refused")),
    });
    await expect(caller.call(get, anonymous)).rejects.toMatchObject({ name: "UnreachableError", code: "UNREACHABLE" });
  });

  test("to a server that does not answer ends in time", async () => {
    const caller = createCaller({
      baseUrl: BASE_URL,
      timeoutMs: 5,
      fetch: (_url, { signal }) =>
        new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error))),
    });
    await expect(caller.call(get, anonymous)).rejects.toMatchObject({ name: "UnreachableError", code: "TIMEOUT" });
  });

  test("that its caller gives up ends with the caller's own reason", async () => {
    const reason = new Error("changed my mind");
    const call = answering({}).call({ ...get, signal: AbortSignal.abort(reason) }, anonymous);
    await expect(call).rejects.toBe(reason);
  });

  test("never follows a redirect with its credential", async () => {
    let redirect = "";
    const caller = createCaller({
      baseUrl: BASE_URL,
      fetch: (_url, init) => {
        redirect = init.redirect;
        return Promise.resolve(new Response("{}"));
      },
    });
    await caller.call(get, anonymous);
    expect(redirect).toBe("manual");
  });

  test.each(["ftp://gate.example.com", "file:///etc", "gate"])("has no base URL like %s", (baseUrl) => {
    expect(() => createCaller({ baseUrl })).toThrow(TypeError);
  });
});

describe("a clock that is wrong", () => {
  const slowBy = 3_600_000;
  const setUp = (stillRefused: boolean) => {
    let refusals = 0;
    const gate = fakeGate({
      "GET /v1/time": () => ({ json: { unixMs: NOON_MS } }),
      "GET /x": ({ headers }) => {
        if (!stillRefused && headers.get("X-Time") === String(NOON_MS)) return { json: {} };
        refusals += 1;
        return problem(401, "PROXY_AUTH_TIMESTAMP_SKEW");
      },
    });
    const caller = createCaller({ baseUrl: BASE_URL, fetch: gate.fetch, now: () => NOON_MS - slowBy });
    const authorize = () => Promise.resolve({ "X-Time": String(caller.clock.nowMs()) });
    return { gate, caller, call: () => caller.call(get, authorize), refusals: () => refusals };
  };

  test("is corrected by the server's after a refusal, and stays corrected", async () => {
    const { gate, caller, call, refusals } = setUp(false);
    await call();
    await call();
    expect(caller.clock.offsetMs()).toBe(slowBy);
    expect(refusals()).toBe(1);
    expect(gate.to("/v1/time")).toHaveLength(1);
  });

  test("is corrected once a call, not for ever", async () => {
    const { call, refusals } = setUp(true);
    await expect(call()).rejects.toBeInstanceOf(ProblemError);
    expect(refusals()).toBe(2);
  });
});

describe("an installation", () => {
  test("tells its time, and how far the own clock is off", async () => {
    const times = [NOON_MS, NOON_MS + 100];
    const gate = fakeGate({ "GET /v1/time": () => ({ json: { unixMs: NOON_MS + 5_050 } }) });
    const client = createInstallationClient({ baseUrl: BASE_URL, fetch: gate.fetch, now: () => times.shift() ?? 0 });
    expect(await client.serverTime()).toEqual({ unixMs: NOON_MS + 5_050, offsetMs: 5_000, roundTripMs: 100 });
  });

  test.each([
    ["ready", { json: { ready: true } }, true],
    ["not ready, as a problem", problem(503, "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"), false],
    ["not ready, with its dependencies", { status: 503, json: { ready: false } }, false],
  ])("is %s", async (_what, reply, ready) => {
    const client = createInstallationClient({
      baseUrl: BASE_URL,
      fetch: fakeGate({ "GET /ready": () => reply }).fetch,
    });
    expect((await client.readiness()).ready).toBe(ready);
  });

  test("that cannot be reached is an error, not an unready one", async () => {
    const client = createInstallationClient({ baseUrl: BASE_URL, fetch: () => Promise.reject(new TypeError("no")) });
    await expect(client.readiness()).rejects.toBeInstanceOf(UnreachableError);
  });
});
