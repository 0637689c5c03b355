import { describe, expect, test, vi } from "vitest";
import { anonymous, createCaller } from "../../../src/client/transport/http-call.ts";
import {
  createInstallationClient,
  generateKeys,
  ProblemError,
  UnexpectedAnswerError,
  UnreachableError,
} from "../../../src/client/index.ts";
import { provenBy } from "../../../src/client/transport/signing.ts";
import { BASE_URL, fakeGate, NOON_MS, problem, proofOf, type Reply } from "../fake-gate.ts";

const get = { method: "GET", path: "/x" } as const;
const answering = (reply: Reply) =>
  createCaller({ baseUrl: BASE_URL, fetch: fakeGate({ "GET /x": () => reply }).fetch });

describe("an answer", () => {
  test("is its JSON, or nothing", async () => {
    const text = '{"a":1.0}';
    expect(await answering({ text }).call(get, anonymous)).toEqual({ status: 200, text, json: { a: 1 } });
    expect(await answering({ status: 204 }).call(get, anonymous)).toEqual({ status: 204, text: "", json: undefined });
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
    ["Sun, 22 Nov 2026 12:00:07 GMT", 7_000],
    ["Sunday, 22-Nov-26 12:00:07 GMT", 7_000],
    ["Sun, 22 Nov 2026 11:00:00 GMT", 0],
    ["7", 7_000],
    ["soon", null],
  ])("says how long to wait as seconds or as a date, by the server's clock: %s", async (retryAfter, retryAfterMs) => {
    const reply = problem(429, "PROXY_RATE_LIMIT_EXCEEDED", { "Retry-After": retryAfter });
    const { fetch } = fakeGate({ "GET /x": () => reply });
    const call = createCaller({ baseUrl: BASE_URL, fetch, now: () => NOON_MS }).call(get, anonymous);
    await expect(call).rejects.toMatchObject({ retryAfterMs });
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

describe("which proof a call carries", () => {
  const signing = async (answer: (version: 1 | 2, turn: number) => Reply) => {
    const keys = await generateKeys();
    const versions: (1 | 2)[] = [];
    const gate = fakeGate({
      "GET /x": (request) => {
        const version = proofOf(request)?.version ?? 1;
        versions.push(version);
        return answer(version, versions.length);
      },
    });
    const caller = createCaller({ baseUrl: BASE_URL, fetch: gate.fetch, now: () => NOON_MS });
    const call = () => caller.call(get, (request) => provenBy(keys, { Authorization: "Claw x" }, request, NOON_MS));
    return { call, versions };
  };
  const unknowing = problem(401, "PROXY_AUTH_INVALID_TIMESTAMP", { "Accept-Signature": "" });

  test("proof: version 2 to a server that takes it", async () => {
    const { call, versions } = await signing(() => ({ json: {} }));
    await call();
    expect(versions).toEqual([2]);
  });

  test("proof: version 1 to a server that does not offer version 2, and at once from then on", async () => {
    const { call, versions } = await signing((version) => (version === 1 ? { json: {} } : unknowing));
    await call();
    await call();
    expect(versions).toEqual([2, 1, 1]);
  });

  test("proof: a server that has taken version 2 once is never sent version 1", async () => {
    const { call, versions } = await signing((_version, turn) => (turn === 1 ? { json: {} } : unknowing));
    await call();
    await expect(call()).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_TIMESTAMP" });
    expect(versions).toEqual([2, 2]);
  });

  test("proof: a refusal by a server that offers version 2 is the caller's to know", async () => {
    const { call, versions } = await signing(() => problem(401, "PROXY_AUTH_INVALID_PROOF"));
    await expect(call()).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_PROOF" });
    expect(versions).toEqual([2]);
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

  test.each([
    [Object.assign(new Error("connect ECONNREFUSED 192.0.2.1:1"), { code: "ECONNREFUSED" }), "(ECONNREFUSED)"],
    [new Error("bad port"), "(bad port)"],
  ])("to a server that is out of reach says what the platform says of it: %s", async (cause, why) => {
    const failed = () => Promise.reject(new TypeError("fetch failed", { cause }));
    const call = createCaller({ baseUrl: BASE_URL, fetch: failed }).call(get, anonymous);
    await expect(call).rejects.toMatchObject({ code: "UNREACHABLE", message: expect.stringContaining(why) as string });
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

describe("a base URL with a path", () => {
  test("is called under that path, and signed for the one behind it, which whatever is in front takes off", async () => {
    const seen: string[] = [];
    const signed: string[] = [];
    const caller = createCaller({
      baseUrl: "https://gate.example.com/gate/",
      fetch: (url) => {
        seen.push(url);
        return Promise.resolve(new Response("{}"));
      },
    });
    await caller.call({ method: "GET", path: "/v1/dead-letters?limit=1" }, ({ url }) => {
      signed.push(url.href);
      return Promise.resolve({});
    });
    expect(seen).toEqual(["https://gate.example.com/gate/v1/dead-letters?limit=1"]);
    expect(signed).toEqual(["https://gate.example.com/v1/dead-letters?limit=1"]);
  });

  test.each(["https://gate.example.com/?x=1", "https://gate.example.com/#x", "https://u:p@gate.example.com"])(
    "is none with more than that: %s",
    (baseUrl) => {
      expect(() => createCaller({ baseUrl })).toThrow(TypeError);
    },
  );
});

test.each(["secret\n", "caf\u00e9", "\u200bsecret", "\u{1f511}"])(
  "a header that cannot be sent is an error that names it, and no outage: %j",
  async (value) => {
    const call = answering({ json: {} }).call(get, () => Promise.resolve({ Authorization: value }));
    await expect(call).rejects.toMatchObject({ code: "INVALID_ARGUMENT", argument: "Authorization" });
    await expect(call).rejects.not.toHaveProperty("message", expect.stringContaining(value.trim()));
  },
);

describe("a clock that is wrong", () => {
  const slowBy = 300_000;
  const setUp = (stillRefused: boolean, options: { slowBy?: number; trustServerClock?: boolean | undefined } = {}) => {
    const corrections: number[] = [];
    let refusals = 0;
    const gate = fakeGate({
      "GET /v1/time": () => ({ json: { unixMs: NOON_MS } }),
      "GET /x": ({ headers }) => {
        if (!stillRefused && headers.get("X-Time") === String(NOON_MS)) return { json: {} };
        refusals += 1;
        return problem(401, "PROXY_AUTH_TIMESTAMP_SKEW");
      },
    });
    const caller = createCaller({
      baseUrl: BASE_URL,
      fetch: gate.fetch,
      now: () => NOON_MS - (options.slowBy ?? slowBy),
      trustServerClock: options.trustServerClock,
      onClockCorrection: (offsetMs) => void corrections.push(offsetMs),
    });
    const authorize = () => Promise.resolve({ "X-Time": String(caller.clock.nowMs()) });
    return { gate, caller, call: () => caller.call(get, authorize), refusals: () => refusals, corrections };
  };

  test("is corrected by the server's after a refusal, and stays corrected", async () => {
    const { gate, caller, call, refusals, corrections } = setUp(false);
    await call();
    await call();
    expect(corrections).toEqual([slowBy]);
    expect(caller.clock.offsetMs()).toBe(slowBy);
    expect(refusals()).toBe(1);
    expect(gate.to("/v1/time")).toHaveLength(1);
  });

  test.each([
    [600_000, undefined],
    [-86_400_000, undefined],
    [86_400_000, true],
  ])("by %d ms is corrected, trusting the server: %s", async (offsetMs, trustServerClock) => {
    const { call, caller } = setUp(false, { slowBy: offsetMs, trustServerClock });
    await call();
    expect(caller.clock.offsetMs()).toBe(offsetMs);
  });

  test("by more than ten minutes is not: what is signed for later could be used then", async () => {
    const { call, caller, gate, corrections } = setUp(false, { slowBy: 600_001 });
    await expect(call()).rejects.toMatchObject({ code: "CLOCK_NOT_TRUSTED", offsetMs: 600_001 });
    expect(caller.clock.offsetMs()).toBe(0);
    expect(corrections).toEqual([]);
    expect(gate.to("/x")).toHaveLength(1);
  });

  test("is warned of on the console, unless the caller wants it otherwise", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    const gate = fakeGate({ "GET /v1/time": () => ({ json: { unixMs: NOON_MS } }) });
    await createCaller({ baseUrl: BASE_URL, fetch: gate.fetch, now: () => NOON_MS - 60_000 }).correctClock();
    expect(warn).toHaveBeenCalledWith(expect.stringContaining("60 s behind"));
    warn.mockRestore();
  });

  test("is corrected once a call, not for ever", async () => {
    const { call, refusals } = setUp(true);
    await expect(call()).rejects.toBeInstanceOf(ProblemError);
    expect(refusals()).toBe(2);
  });
});

describe("an installation", () => {
  test("gives its time, and how far the own clock is off", async () => {
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
