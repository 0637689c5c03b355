/** Requests that fit no route, no method, or no JSON-RPC. */
import { describe, expect, test } from "vitest";
import { operator, request, send } from "../support/program/agents.ts";
import { alice, bob, expectNoHarm, expectProblem, expectRawProblem, proxy, serveForBadInput } from "./bad-input.ts";
import { head, rawHttp } from "./raw-http.ts";

serveForBadInput({ arePaired: true });

describe("routes and methods", () => {
  test.each<[string, string, number, string]>([
    ["GET", "/nowhere", 404, "PROXY_NOT_FOUND"],
    ["GET", "/", 404, "PROXY_NOT_FOUND"],
    ["GET", "/hooks/agent", 404, "PROXY_NOT_FOUND"],
    ["DELETE", "/hooks/agent", 404, "PROXY_NOT_FOUND"],
    ["PUT", "/pair/start", 404, "PROXY_NOT_FOUND"],
    ["OPTIONS", "/hooks/agent", 404, "PROXY_NOT_FOUND"],
    ["PROPFIND", "/health", 404, "PROXY_NOT_FOUND"],
    ["POST", "/health", 404, "PROXY_NOT_FOUND"],
    ["GET", "/hooks/agent/", 404, "PROXY_NOT_FOUND"],
    ["GET", "/v1/deliveries/%00", 401, "PROXY_AUTH_MISSING_TOKEN"],
    ["GET", "/%E0%A4%A", 404, "PROXY_NOT_FOUND"],
    ["GET", "/relay/connect", 426, "PROXY_UPGRADE_REQUIRED"],
    ["GET", "/v1/relay/connect", 426, "PROXY_UPGRADE_REQUIRED"],
    ["GET", "/v1/agents", 401, "PROXY_AUTH_MISSING_TOKEN"],
    ["GET", "/v1/crl", 404, "PROXY_NOT_FOUND"],
  ])("%s %s", async (method, path, status, code) => {
    expectProblem(await send(proxy.url, { method, path }, {}), status, code);
  });

  test.each(["= x", "a b", "x:y"])("a Host that is none, '%s', is refused", async (host) => {
    const answer = await rawHttp(proxy.url, [
      head("GET", "/health", [
        ["Host", host],
        ["Connection", "close"],
      ]),
    ]);
    // The server in front may refuse it before the program sees it.
    if (answer.body !== "" && answer.body.startsWith("{")) expectRawProblem(answer, 400, "PROXY_BAD_REQUEST");
    expect(answer.status).toBe(400);
  });

  test("HEAD says what GET would, without the body", async () => {
    const answers = await Promise.all(
      ["/health", "/v1/time", "/nowhere"].map((path) => fetch(proxy.url + path, { method: "HEAD" })),
    );
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 404]);
    expect(await Promise.all(answers.map((answer) => answer.text()))).toEqual(["", "", ""]);
  });

  test.each([
    ["8 characters", "abcd.:-_", true],
    ["128 characters", "a".repeat(128), true],
    ["7 characters", "abcdefg", false],
    ["129 characters", "a".repeat(129), false],
    ["a space", "abcd efgh", false],
    ["markup", "<script>alert(1)</script>", false],
  ])("a request id of %s is echoed or replaced, on answers and refusals alike", async (_, offered, isEchoed) => {
    for (const path of ["/health", "/nowhere"]) {
      // oxlint-disable-next-line no-await-in-loop -- two requests
      const answer = await fetch(proxy.url + path, { headers: { "X-Request-Id": offered } });
      const echoed = answer.headers.get("x-request-id") ?? "";
      expect(echoed).toMatch(/^[A-Za-z0-9._:-]{8,128}$/);
      expect(echoed === offered).toBe(isEchoed);
    }
  });

  test.each<[string, unknown, number, string]>([
    ["no body", undefined, 400, "PROXY_PAIR_INVALID_BODY"],
    ["a list", [], 400, "PROXY_PAIR_INVALID_BODY"],
    ["no profile", {}, 400, "PROXY_PAIR_INVALID_BODY"],
    [
      "no time at all",
      { initiatorProfile: { agentName: "a", humanName: "b" }, ttlSeconds: 0 },
      400,
      "PROXY_PAIR_INVALID_BODY",
    ],
    [
      "901 seconds",
      { initiatorProfile: { agentName: "a", humanName: "b" }, ttlSeconds: 901 },
      400,
      "PROXY_PAIR_INVALID_BODY",
    ],
    [
      "a responder that is no DID",
      { initiatorProfile: { agentName: "a", humanName: "b" }, allowResponderAgentDid: "x" },
      400,
      "PROXY_PAIR_INVALID_BODY",
    ],
  ])("/pair/start with %s", async (_, body, status, code) => {
    expectProblem(
      await request(proxy.url, alice, {
        method: "POST",
        path: "/pair/start",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
      status,
      code,
    );
  });

  test.each(["confirm", "status"])("/pair/%s with a ticket that is none", async (route) => {
    const body = JSON.stringify({ ticket: "x", responderProfile: { agentName: "a", humanName: "b" } });
    expectProblem(
      await request(proxy.url, alice, { method: "POST", path: `/pair/${route}`, body }),
      400,
      "PROXY_PAIR_TICKET_INVALID",
    );
  });

  test("an operator's token that is wrong is refused like any", async () => {
    const answer = await send(
      proxy.url,
      { method: "GET", path: "/v1/agents" },
      { Authorization: `Bearer ${"x".repeat(40)}` },
    );
    expectProblem(answer, 401, "PROXY_AUTH_INVALID_TOKEN");
    expect((await operator(proxy.url, "GET", `/v1/dead-letters?agentDid=${bob.did}`)).status).toBe(200);
    expectProblem(await operator(proxy.url, "GET", "/v1/dead-letters"), 400, "PROXY_BAD_REQUEST");
    expectProblem(
      await operator(proxy.url, "GET", `/v1/dead-letters?agentDid=${bob.did}&limit=0`),
      400,
      "PROXY_BAD_REQUEST",
    );
  });

  test("a delivery that is not there is not found", async () => {
    expectProblem(
      await request(proxy.url, alice, { method: "GET", path: "/v1/deliveries/01K00000000000000000000000" }),
      404,
      "PROXY_NOT_FOUND",
    );
    expectProblem(
      await request(proxy.url, alice, { method: "GET", path: `/v1/deliveries/${"x".repeat(513)}` }),
      400,
      "PROXY_BAD_REQUEST",
    );
    expectProblem(
      await request(proxy.url, alice, { method: "POST", path: "/v1/dead-letters/nothing/replay" }),
      404,
      "PROXY_NOT_FOUND",
    );
    expectProblem(
      await request(proxy.url, alice, { method: "DELETE", path: "/v1/dead-letters/nothing" }),
      404,
      "PROXY_NOT_FOUND",
    );
  });
});

test("after all that nothing has failed inside, and no secret has been printed", expectNoHarm);
