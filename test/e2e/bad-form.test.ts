/** What is wrong in form, by its key or in its proof is refused with one problem each, and costs what it should. */
import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type Answer, request, send, signedHeaders } from "../support/program/agents.ts";
import {
  alice,
  b64,
  bob,
  expectNoHarm,
  expectProblem,
  hook,
  MIB,
  nowSeconds,
  provenOver,
  proxy,
  registry,
  sendWith,
  serveForBadInput,
  stranger,
  strangersAit,
  withAit,
} from "./bad-input.ts";

serveForBadInput({ arePaired: false });

describe("a form that is wrong costs no call of the registry", () => {
  type Case = [string, () => Record<string, string | undefined>, number, string];
  const cases: Case[] = [
    ["no credential", () => ({ Authorization: undefined }), 401, "PROXY_AUTH_MISSING_TOKEN"],
    ["an empty one", () => ({ Authorization: "" }), 401, "PROXY_AUTH_MISSING_TOKEN"],
    ["another scheme", () => ({ Authorization: "Basic YTpi" }), 401, "PROXY_AUTH_INVALID_SCHEME"],
    ["a scheme alone", () => ({ Authorization: "Claw" }), 401, "PROXY_AUTH_INVALID_AIT"],
    ["a token that is none", () => withAit("hello"), 401, "PROXY_AUTH_INVALID_AIT"],
    ["two tokens", () => withAit(`${stranger.ait}, Claw ${stranger.ait}`), 401, "PROXY_AUTH_INVALID_AIT"],
    [
      "an expired token",
      () => withAit(strangersAit({ exp: nowSeconds() - 1, iat: 1, nbf: 1 })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    [
      "a token not yet valid",
      () => withAit(strangersAit({ nbf: nowSeconds() + 3_000 })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    [
      "a token of another issuer",
      () => withAit(strangersAit({ iss: "https://other.test.example" })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    ["alg none", () => withAit(strangersAit({}, { alg: "none" })), 401, "PROXY_AUTH_INVALID_AIT"],
    ["alg HS256", () => withAit(strangersAit({}, { alg: "HS256" })), 401, "PROXY_AUTH_INVALID_AIT"],
    ["another typ", () => withAit(strangersAit({}, { typ: "JWT" })), 401, "PROXY_AUTH_INVALID_AIT"],
    ["an empty kid", () => withAit(strangersAit({}, { kid: "" })), 401, "PROXY_AUTH_INVALID_AIT"],
    ["a claim too many", () => withAit(strangersAit({ admin: true })), 401, "PROXY_AUTH_INVALID_AIT"],
    [
      "a control character in a claim",
      () => withAit(strangersAit({ framework: "te\u0007st" })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    [
      "a subject of another authority",
      () => withAit(strangersAit({ sub: "did:cdi:other.test.example:agent:01K00000000000000000000000" })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    ["a token of 9 KB", () => withAit(strangersAit({ description: "x".repeat(9_000) })), 401, "PROXY_AUTH_INVALID_AIT"],
    ["no timestamp", () => ({ "X-Claw-Timestamp": undefined }), 401, "PROXY_AUTH_INVALID_TIMESTAMP"],
    [
      "a timestamp in milliseconds",
      () => ({ "X-Claw-Timestamp": String(Date.now()) }),
      401,
      "PROXY_AUTH_INVALID_TIMESTAMP",
    ],
    ["a negative timestamp", () => ({ "X-Claw-Timestamp": `-${nowSeconds()}` }), 401, "PROXY_AUTH_INVALID_TIMESTAMP"],
    [
      "a timestamp with a sign",
      () => ({ "X-Claw-Timestamp": `+${nowSeconds()}` }),
      401,
      "PROXY_AUTH_INVALID_TIMESTAMP",
    ],
    [
      "a timestamp with a fraction",
      () => ({ "X-Claw-Timestamp": `${nowSeconds()}.5` }),
      401,
      "PROXY_AUTH_INVALID_TIMESTAMP",
    ],
    ["a timestamp in other digits", () => ({ "X-Claw-Timestamp": "0x65" }), 401, "PROXY_AUTH_INVALID_TIMESTAMP"],
    [
      "a timestamp of yesterday",
      () => ({ "X-Claw-Timestamp": String(nowSeconds() - 86_400) }),
      401,
      "PROXY_AUTH_TIMESTAMP_SKEW",
    ],
    [
      "a timestamp of tomorrow",
      () => ({ "X-Claw-Timestamp": String(nowSeconds() + 86_400) }),
      401,
      "PROXY_AUTH_TIMESTAMP_SKEW",
    ],
    ["no nonce", () => ({ "X-Claw-Nonce": undefined }), 401, "PROXY_AUTH_INVALID_NONCE"],
    ["an empty nonce", () => ({ "X-Claw-Nonce": "" }), 401, "PROXY_AUTH_INVALID_NONCE"],
    ["a nonce of 10 KB", () => ({ "X-Claw-Nonce": "n".repeat(10_240) }), 401, "PROXY_AUTH_INVALID_NONCE"],
    ["a nonce with a space", () => ({ "X-Claw-Nonce": "a b" }), 401, "PROXY_AUTH_INVALID_NONCE"],
    ["no body hash", () => ({ "X-Claw-Body-SHA256": undefined }), 401, "PROXY_AUTH_INVALID_PROOF"],
    ["a body hash of another length", () => ({ "X-Claw-Body-SHA256": b64(31) }), 401, "PROXY_AUTH_INVALID_PROOF"],
    ["no proof", () => ({ "X-Claw-Proof": undefined }), 401, "PROXY_AUTH_INVALID_PROOF"],
    ["a signature of 63 bytes", () => ({ "X-Claw-Proof": b64(63) }), 401, "PROXY_AUTH_INVALID_PROOF"],
    ["a signature of 65 bytes", () => ({ "X-Claw-Proof": b64(65) }), 401, "PROXY_AUTH_INVALID_PROOF"],
    ["a signature with padding", () => ({ "X-Claw-Proof": `${b64(64)}==` }), 401, "PROXY_AUTH_INVALID_PROOF"],
    ["two different signatures", () => ({ "X-Claw-Signature": b64(64) }), 401, "PROXY_AUTH_INVALID_PROOF"],
    ["no access token", () => ({ "X-Claw-Agent-Access": undefined }), 401, "PROXY_AGENT_ACCESS_REQUIRED"],
    [
      "an access token of 10 KB",
      () => ({ "X-Claw-Agent-Access": "a".repeat(10_240) }),
      401,
      "PROXY_AGENT_ACCESS_INVALID",
    ],
    ["no recipient", () => ({ "X-Claw-Recipient-Agent-Did": undefined }), 400, "PROXY_HOOK_RECIPIENT_REQUIRED"],
    [
      "a recipient that is no DID",
      () => ({ "X-Claw-Recipient-Agent-Did": "bob" }),
      400,
      "PROXY_HOOK_RECIPIENT_INVALID",
    ],
    [
      "a recipient that is human",
      () => ({ "X-Claw-Recipient-Agent-Did": bob.ownerDid }),
      400,
      "PROXY_HOOK_RECIPIENT_INVALID",
    ],
    [
      "two recipients",
      () => ({ "X-Claw-Recipient-Agent-Did": `${bob.did}, ${bob.did}` }),
      400,
      "PROXY_HOOK_RECIPIENT_INVALID",
    ],
    ["the sender itself", () => ({ "X-Claw-Recipient-Agent-Did": stranger.did }), 400, "PROXY_HOOK_RECIPIENT_INVALID"],
  ];

  test.each(cases)("%s", async (_, changed, status, code) => {
    const before = { ...registry.calls };
    expectProblem(await sendWith(changed(), hook(), stranger), status, code);
    expect(registry.calls).toEqual(before);
  });

  test("a token of 100 KB", async () => {
    const before = { ...registry.calls };
    const answer = await sendWith(withAit(strangersAit({ description: "x".repeat(75_000) })));
    expect(answer.status).toBe(401);
    expect(registry.calls).toEqual(before);
  });

  test("a body of more than 1 MiB", async () => {
    const body = JSON.stringify("x".repeat(MIB - 1));
    expect(body.length).toBe(MIB + 1);
    const before = { ...registry.calls };
    expectProblem(await sendWith({}, hook({ body }), stranger), 413, "PROXY_BODY_TOO_LARGE");
    expect(registry.calls).toEqual(before);
  });
});

describe("what only the registry's keys can tell", () => {
  test("200 tokens with random kids cause one refresh at most", async () => {
    expect((await request(proxy.url, alice, hook())).status).toBe(403);
    const before = registry.calls.keys;
    const answers = await Promise.all(
      Array.from({ length: 200 }, () =>
        sendWith(withAit(registry.ait(alice, {}, { key: { ...registry.key, kid: randomUUID() } }))),
      ),
    );
    // Those that come while the one refresh is under way may be told to come again.
    for (const answer of answers) expect([401, 503]).toContain(answer.status);
    expect(answers.filter(({ status }) => status === 401).length).toBeGreaterThan(0);
    expect(registry.calls.keys - before).toBeLessThanOrEqual(1);
  });

  test.each<[string, () => Record<string, string>, number, string]>([
    [
      "an unknown kid",
      () => withAit(registry.ait(alice, {}, { key: { ...registry.key, kid: "kid-unknown" } })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    [
      "a revoked kid",
      () => withAit(registry.ait(alice, {}, { key: { ...registry.key, kid: "kid-revoked" } })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    [
      "another key under a known kid",
      () => withAit(registry.ait(alice, {}, { key: registry.newKey("kid-1") })),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    [
      "a signature of another token",
      () => withAit([...alice.ait.split(".").slice(0, 2), bob.ait.split(".")[2]].join(".")),
      401,
      "PROXY_AUTH_INVALID_AIT",
    ],
    [
      "an access token that the registry does not know",
      () => ({ "X-Claw-Agent-Access": "bad" }),
      403,
      "PROXY_AUTH_FORBIDDEN",
    ],
  ])("%s", async (_, changed, status, code) => {
    expectProblem(await sendWith(changed()), status, code);
  });
});

describe("a proof over something else", () => {
  test.each<[string, () => Promise<Answer>]>([
    ["another method", () => send(proxy.url, hook(), provenOver({ method: "GET" }))],
    ["another path", () => send(proxy.url, hook(), provenOver({ path: "/hooks/message" }))],
    [
      "another query",
      () => send(proxy.url, hook({ path: "/hooks/agent?a=1" }), provenOver({ path: "/hooks/agent?a=2" })),
    ],
    ["another body", () => send(proxy.url, hook(), provenOver({ body: "{}" }))],
    ["the hash of another body", () => send(proxy.url, { ...hook(), body: "{}" }, signedHeaders(alice, hook()))],
    ["another timestamp", () => sendWith({ "X-Claw-Timestamp": String(nowSeconds() - 2) })],
    ["another nonce", () => sendWith({ "X-Claw-Nonce": randomUUID() })],
    ["another's key", () => sendWith({}, hook({ key: bob.privateKey }))],
  ])("%s is refused", async (_, made) => {
    expectProblem(await made(), 401, "PROXY_AUTH_INVALID_PROOF");
  });
});

test("after all that nothing has failed inside, and no secret has been printed", expectNoHarm);
