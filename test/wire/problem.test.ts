import { describe, expect, test } from "vitest";
import { PROBLEMS, type ProblemCode, problemResponse, ProxyError, proxyErrorFrom } from "../../src/wire/problem.ts";

const codes = Object.keys(PROBLEMS) as ProblemCode[];

/** The table of the wire, so that a change of a status is seen here first. */
const statuses: Record<number, string[]> = {
  400: [
    "PROXY_HOOK_INVALID_JSON",
    "PROXY_HOOK_RECIPIENT_REQUIRED",
    "PROXY_HOOK_RECIPIENT_INVALID",
    "PROXY_PAIR_INVALID_BODY",
    "PROXY_PAIR_TICKET_INVALID",
    "PROXY_BAD_REQUEST",
  ],
  401: [
    "PROXY_AUTH_INVALID_TOKEN",
    "PROXY_AUTH_MISSING_TOKEN",
    "PROXY_AUTH_INVALID_SCHEME",
    "PROXY_AUTH_INVALID_AIT",
    "PROXY_AUTH_INVALID_PROOF",
    "PROXY_AUTH_INVALID_SIGNATURE_INPUT",
    "PROXY_AUTH_INVALID_TIMESTAMP",
    "PROXY_AUTH_TIMESTAMP_SKEW",
    "PROXY_AUTH_INVALID_NONCE",
    "PROXY_AUTH_REPLAY",
    "PROXY_AUTH_REVOKED",
    "PROXY_AUTH_CLIENT_INVALIDATED",
    "PROXY_AGENT_ACCESS_REQUIRED",
    "PROXY_AGENT_ACCESS_INVALID",
  ],
  403: ["PROXY_AUTH_FORBIDDEN", "PROXY_TRUST_UNAVAILABLE"],
  404: ["PROXY_NOT_FOUND"],
  409: ["PROXY_CONFLICT"],
  410: ["PROXY_GONE"],
  413: ["PROXY_BODY_TOO_LARGE"],
  415: ["PROXY_UNSUPPORTED_MEDIA_TYPE"],
  426: ["PROXY_UPGRADE_REQUIRED"],
  429: ["PROXY_RATE_LIMIT_EXCEEDED"],
  500: ["PROXY_INTERNAL"],
  503: ["PROXY_AUTH_DEPENDENCY_UNAVAILABLE", "DRAIN_TIMEOUT", "OVERLOADED", "AUTHZ_UNAVAILABLE"],
  507: ["PROXY_RELAY_QUEUE_FULL", "PROXY_QUOTA_EXCEEDED"],
};

const sorted = (table: Record<number, string[]>) =>
  Object.fromEntries(Object.entries(table).map(([status, names]) => [status, names.toSorted()]));

test("every code has the status that the wire promises, and there is no other code", () => {
  const actual: Record<number, string[]> = {};
  for (const code of codes) (actual[PROBLEMS[code].status] ??= []).push(code);
  expect(sorted(actual)).toEqual(sorted(statuses));
});

describe.each(codes)("the answer %s", (code) => {
  const response = () => problemResponse(new ProxyError(code, { reason: "for the log alone" }), "request-1");

  test("is a problem document with its status, its code and the request's id, and keeps the reason to itself", async () => {
    const text = await response().text();
    const { status, title, detail } = PROBLEMS[code];
    expect(JSON.parse(text)).toEqual({
      type: `urn:sallyport:problem:${code.toLowerCase().replaceAll("_", "-")}`,
      title,
      status,
      detail,
      code,
      requestId: "request-1",
    });
    expect(text).not.toContain("for the log alone");
    expect(response().status).toBe(status);
    expect(response().headers.get("Content-Type")).toBe("application/problem+json");
    expect(response().headers.get("X-Request-Id")).toBe("request-1");
  });

  test("carries the header that its status asks for", () => {
    const { headers, status } = response();
    expect(headers.has("WWW-Authenticate")).toBe(status === 401);
    expect(headers.has("Retry-After")).toBe(status === 429 || status === 503 || code === "PROXY_RELAY_QUEUE_FULL");
  });
});

test.each([
  [undefined, "1"],
  [1, "1"],
  [1_001, "2"],
  [30_000, "30"],
])("a wait of %s ms is told as %s whole seconds", (retryAfterMs, seconds) => {
  const response = problemResponse(new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", { retryAfterMs }), "request-1");
  expect(response.headers.get("Retry-After")).toBe(seconds);
});

describe("a refusal that was thrown", () => {
  test("stays itself", () => {
    const error = new ProxyError("PROXY_GONE");
    expect(proxyErrorFrom(error)).toBe(error);
  });

  test("is known again after it has crossed from one object to another", () => {
    const arrived = Object.assign(new Error("Told to the caller."), { name: "ProxyError", code: "PROXY_CONFLICT" });
    expect(proxyErrorFrom(arrived)).toMatchObject({
      code: "PROXY_CONFLICT",
      status: 409,
      message: "Told to the caller.",
    });
  });

  test.each([
    new Error("D1_ERROR: UNIQUE constraint failed: secret: SQLITE_CONSTRAINT"),
    new Error("D1_ERROR: no such table: secret: SQLITE_ERROR"),
    Object.assign(new Error("secret"), { code: "toString" }),
    "secret",
    undefined,
  ])("and is none becomes an internal error that tells nothing (%s)", (thrown) => {
    const error = proxyErrorFrom(thrown);
    expect(error.code).toBe("PROXY_INTERNAL");
    expect(error.message).not.toContain("secret");
  });

  test.each([
    "D1_ERROR: Network connection lost, secret",
    "D1 DB is overloaded, secret",
    "D1_ERROR: secret: SQLITE_BUSY",
    "secret or disk is full: SQLITE_FULL",
  ])("and says that the database is out of reach (%s) is a 503 that tells nothing", (message) => {
    const error = proxyErrorFrom(new Error(message));
    expect([error.code, error.status, error.retryAfterMs]).toEqual(["PROXY_AUTH_DEPENDENCY_UNAVAILABLE", 503, 1_000]);
    expect(error.message).not.toContain("secret");
  });
});
