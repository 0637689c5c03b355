import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Passed, PassedAgent } from "../../src/auth/passed.ts";
import { HOOK, type RouteNeeds } from "../../src/auth/form.ts";
import { REASONS, type Reason } from "../../src/auth/reasons.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import type { ProxyError } from "../../src/wire/problem.ts";
import type { Result } from "../../src/wire/result.ts";
import {
  ACCESS_TOKEN,
  AIT_HEADER,
  type Agent,
  b64,
  type ChainHarness,
  ISSUER,
  KID,
  newAgent,
  newChainHarness,
  newKeyPair,
  NOW_MS,
  OPERATOR_TOKEN,
  type Signed,
  signedRequest,
  signJws,
} from "./fixture.ts";

const NOW_SECONDS = NOW_MS / 1_000;
const MIB = 1_048_576;

let harness: ChainHarness;
let alice: Agent;
let bob: Agent;

beforeAll(async () => {
  [alice, bob] = await Promise.all([newAgent(), newAgent()]);
});

beforeEach(() => {
  harness = newChainHarness();
  harness.trusts(alice.did, bob.did);
});

const hook = async (
  how: Signed = {},
  from: Agent = alice,
  to: string | null = bob.did,
): Promise<Result<Passed, ProxyError>> =>
  harness.chain.authenticate(await signedRequest(from, to, how), HOOK, harness.scope);

const passedAgent = (result: Result<Passed, ProxyError>): PassedAgent => {
  if (!result.ok || result.value.kind !== "agent") throw new Error("the request did not pass as an agent's");
  return result.value;
};

const lastDecision = () => harness.log.lines.findLast((line) => line.event === "auth.decision");
const registryCalls = () => harness.registry.calls.keys + harness.registry.calls.crl + harness.registry.calls.access;

/** Expects a refusal for this reason, told by its code alone, and logged once with its stage. */
function expectRefused(result: Result<Passed, ProxyError>, reason: Reason): void {
  const { code, stage } = REASONS[reason];
  expect(result.ok ? "accepted" : [result.error.code, result.error.reason]).toEqual([code, reason]);
  const decisions = harness.log.lines.filter((line) => line.event === "auth.decision");
  expect(decisions).toHaveLength(1);
  expect(decisions[0]?.fields).toMatchObject({ outcome: "refused", stage, reason, code });
}

describe("a signed send between agents that trust each other", () => {
  test("passes with everything that the gate needs", async () => {
    const passed = passedAgent(await hook({ nonce: "n-1", timestamp: String(NOW_SECONDS - 7) }));
    expect(passed).toMatchObject({
      principal: {
        kind: "agent",
        agentDid: alice.did,
        ownerDid: alice.claims["ownerDid"],
        jti: alice.claims["jti"],
        expMs: NOW_MS + 3_600_000,
        keyX: alice.x,
      },
      proof: { keyX: alice.x, nonce: "n-1", timestampMs: NOW_MS - 7_000, skewMs: -7_000 },
      trust: { recipientDid: bob.did, epoch: 1 },
      access: { keyHash: "key-hash", validatedAtMs: NOW_MS },
    });
    expect(new TextDecoder().decode(passed.body)).toBe('{"hello":1}');
  });

  test("is logged once, after the gate has answered, with its stages and caches and nothing secret", async () => {
    const passed = passedAgent(await hook({ nonce: "a-very-secret-nonce", body: '{"secret":"of the body"}' }));
    expect(lastDecision()).toBeUndefined();
    expect(harness.chain.conclude(passed, null, harness.scope)).toBeNull();
    harness.chain.conclude(passed, null, harness.scope);
    expect(harness.log.lines).toHaveLength(1);
    expect(lastDecision()?.fields).toMatchObject({
      route: "hooks.agent",
      outcome: "accepted",
      credential: "agent",
      agentDid: alice.did,
      recipientDid: bob.did,
      skewMs: 0,
      tokenCache: "miss",
      keysCache: "hit",
      crlCache: "hit",
      trustCache: "miss",
      accessCache: "hit",
    });
    const line = JSON.stringify(harness.log.lines);
    for (const secret of ["a-very-secret-nonce", "of the body", ACCESS_TOKEN, alice.ait, alice.ait.slice(-40)]) {
      expect(line).not.toContain(secret);
    }
  });

  test("that the route finds unfit afterwards is logged as refused, with the code that it answers with", async () => {
    const passed = passedAgent(await hook());
    harness.chain.conclude(
      passed,
      { reason: "route-refused", diagnostics: { code: "PROXY_HOOK_INVALID_JSON" } },
      harness.scope,
    );
    expect(lastDecision()?.fields).toMatchObject({
      outcome: "refused",
      stage: "route",
      code: "PROXY_HOOK_INVALID_JSON",
    });
    expect(harness.replays.size()).toBe(0);
  });

  test("a second one asks for no key and reads no store", async () => {
    await hook();
    await hook();
    expect(harness.registry.calls.keys).toBe(1);
    expect(harness.store.reads).toBe(1);
    const passed = passedAgent(await hook());
    harness.chain.conclude(passed, null, harness.scope);
    expect(lastDecision()?.fields).toMatchObject({ tokenCache: "hit", trustCache: "hit" });
  });

  test.each<[string, Signed]>([
    ["an empty body", { body: "" }],
    ["a body of exactly 1 MiB", { body: "x".repeat(MIB) }],
    ["a query", { path: "/hooks/agent?a=%20b&c=d?e" }],
    ["the alias of the route", { path: "/hooks/message" }],
    ["299 s of skew", { timestamp: String(NOW_SECONDS + 299) }],
    ["exactly 300 s of skew", { timestamp: String(NOW_SECONDS - 300) }],
    ["a nonce of 256 characters", { nonce: "!".repeat(256) }],
    ["the scheme in another case", { headers: {} }],
  ])("passes with %s", async (_what, how) => {
    expect((await hook(how)).ok).toBe(true);
  });

  test("the scheme may be spelled in any case", async () => {
    expect((await hook({ headers: { Authorization: `cLAW ${alice.ait}` } })).ok).toBe(true);
  });

  test("the signature may come by its alias, alone or beside an equal one", async () => {
    const request = await signedRequest(alice, bob.did);
    const proof = request.headers.get("X-Claw-Proof");
    expect((await hook({ nonce: "n", headers: { "X-Claw-Proof": null } })).ok).toBe(false);
    const both = new Request(request.clone());
    both.headers.set("X-Claw-Signature", proof ?? "");
    expect((await harness.chain.authenticate(both, HOOK, harness.scope)).ok).toBe(true);
    const alias = new Request(request);
    alias.headers.delete("X-Claw-Proof");
    alias.headers.set("X-Claw-Signature", proof ?? "");
    expect((await harness.chain.authenticate(alias, HOOK, harness.scope)).ok).toBe(true);
  });

  test("201 s of skew is accepted and warned of, with the agent", async () => {
    const passed = passedAgent(await hook({ timestamp: String(NOW_SECONDS - 201) }));
    harness.chain.conclude(passed, null, harness.scope);
    expect(harness.log.lines.find((line) => line.event === "auth.clock_skew")).toMatchObject({
      level: "warn",
      fields: { agentDid: alice.did, skewMs: -201_000 },
    });
  });
});

const withClaims = async (claims: Record<string, unknown>, header: Record<string, unknown> = {}): Promise<Signed> => ({
  headers: {
    Authorization: `Claw ${await signJws({ ...AIT_HEADER, ...header }, { ...alice.claims, ...claims })}`,
  },
});

const authorization = (value: string | null): Signed => ({ headers: { Authorization: value } });

/** HMAC over the registry's public documents: the classic confusion of algorithms. */
const hs256 = async (): Promise<string> => {
  const input = `${b64({ ...AIT_HEADER, alg: "HS256" })}.${b64(alice.claims)}`;
  const key = await crypto.subtle.importKey("raw", new Uint8Array(32), { name: "HMAC", hash: "SHA-256" }, false, [
    "sign",
  ]);
  const mac = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(input));
  return `${input}.${btoa(String.fromCharCode(...new Uint8Array(mac)))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "")}`;
};

describe("a request whose own form is wrong is refused before anything is fetched", () => {
  test.each<[string, Reason, () => Promise<Signed> | Signed]>([
    ["no Authorization", "authorization-missing", () => authorization(null)],
    ["an empty Authorization", "authorization-missing", () => authorization("")],
    ["another scheme", "scheme-unknown", () => authorization("Basic YTpi")],
    ["a scheme of another route", "scheme-not-for-this-route", () => authorization(`Bearer ${OPERATOR_TOKEN}`)],
    ["no token after the scheme", "ait-malformed", () => authorization("Claw")],
    ["two credentials", "ait-malformed", () => authorization(`Claw ${alice.ait}, Claw ${alice.ait}`)],
    ["an AIT of two parts", "ait-malformed", () => authorization("Claw a.b")],
    ["an AIT of five parts", "ait-malformed", () => authorization("Claw a.b.c.d.e")],
    ["an AIT of 100 KB", "ait-too-long", () => authorization(`Claw ${"A".repeat(100_000)}`)],
    [
      "alg none",
      "ait-header-invalid",
      () => authorization(`Claw ${b64({ ...AIT_HEADER, alg: "none" })}.${b64(alice.claims)}.`),
    ],
    ["alg HS256", "ait-header-invalid", async () => authorization(`Claw ${await hs256()}`)],
    ["another typ", "ait-header-invalid", () => withClaims({}, { typ: "JWT" })],
    ["an empty kid", "ait-header-invalid", () => withClaims({}, { kid: "" })],
    ["a critical extension", "ait-header-invalid", () => withClaims({}, { crit: ["b64"], b64: false })],
    [
      "a signature of 63 bytes",
      "ait-malformed",
      () => authorization(`Claw ${alice.ait.split(".").slice(0, 2).join(".")}.${"A".repeat(84)}`),
    ],
    [
      "claims that are not canonical base64url",
      "ait-malformed",
      () => authorization(`Claw ${alice.ait.replace(".", "=.")}`),
    ],
    [
      "claims that are no JSON",
      "ait-malformed",
      () => authorization(`Claw ${b64(AIT_HEADER)}.${"A".repeat(8)}.${"A".repeat(86)}`),
    ],
    ["an extra claim", "ait-claims-invalid", () => withClaims({ admin: true })],
    [
      "a claim called __proto__",
      "ait-claims-invalid",
      () => withClaims(JSON.parse('{"__proto__":{"x":1}}') as Record<string, unknown>),
    ],
    ["a control character in a claim", "ait-claims-invalid", () => withClaims({ framework: "a\u0000b" })],
    ["a name that is too long", "ait-claims-invalid", () => withClaims({ name: "a".repeat(65) })],
    ["no jti", "ait-claims-invalid", () => withClaims({ jti: undefined })],
    ["a human as subject", "ait-claims-invalid", () => withClaims({ sub: alice.claims["ownerDid"] })],
    [
      "a subject of another authority",
      "ait-claims-invalid",
      () => withClaims({ sub: alice.did.replace("sallyport", "elsewhere") }),
    ],
    [
      "a key of another length",
      "ait-claims-invalid",
      () => withClaims({ cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: "AAAA" } } }),
    ],
    [
      "a key that is not canonical",
      "ait-claims-invalid",
      () => withClaims({ cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: `${"A".repeat(42)}B` } } }),
    ],
    [
      "a private key inside",
      "ait-claims-invalid",
      () => withClaims({ cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: alice.x, d: alice.x } } }),
    ],
    [
      "a key of small order",
      "ait-proof-key-weak",
      () => withClaims({ cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: `AQ${"A".repeat(41)}` } } }),
    ],
    ["another issuer", "ait-issuer-foreign", () => withClaims({ iss: `${ISSUER}/` })],
    ["not yet valid", "ait-not-yet-valid", () => withClaims({ nbf: NOW_SECONDS + 61 })],
    ["expired", "ait-expired", () => withClaims({ exp: NOW_SECONDS })],
    ["times in milliseconds", "ait-not-yet-valid", () => withClaims({ iat: NOW_MS, nbf: NOW_MS, exp: NOW_MS * 2 })],
    ["no timestamp", "timestamp-missing", () => ({ headers: { "X-Claw-Timestamp": null } })],
    ["a timestamp in milliseconds", "timestamp-malformed", () => ({ timestamp: String(NOW_MS) })],
    ["a negative timestamp", "timestamp-malformed", () => ({ timestamp: `-${NOW_SECONDS}` })],
    ["a timestamp with a sign", "timestamp-malformed", () => ({ timestamp: `+${NOW_SECONDS}` })],
    ["a fraction of a second", "timestamp-malformed", () => ({ timestamp: `${NOW_SECONDS}.0` })],
    ["a timestamp in hexadecimal", "timestamp-malformed", () => ({ timestamp: "0x6ab13b80" })],
    ["an empty timestamp", "timestamp-malformed", () => ({ timestamp: "" })],
    ["two timestamps", "timestamp-malformed", () => ({ timestamp: `${NOW_SECONDS}, ${NOW_SECONDS}` })],
    ["a clock 301 s behind", "timestamp-skewed", () => ({ timestamp: String(NOW_SECONDS - 301) })],
    ["a clock 301 s ahead", "timestamp-skewed", () => ({ timestamp: String(NOW_SECONDS + 301) })],
    ["timestamp 0", "timestamp-skewed", () => ({ timestamp: "0" })],
    ["no nonce", "nonce-missing", () => ({ headers: { "X-Claw-Nonce": null } })],
    ["an empty nonce", "nonce-malformed", () => ({ nonce: "" })],
    ["a nonce of 257 characters", "nonce-malformed", () => ({ nonce: "n".repeat(257) })],
    ["a nonce of 10 KB", "nonce-malformed", () => ({ nonce: "n".repeat(10_240) })],
    ["a nonce with a space", "nonce-malformed", () => ({ nonce: "a b" })],
    ["no body hash", "body-hash-missing", () => ({ headers: { "X-Claw-Body-SHA256": null } })],
    [
      "a body hash in hexadecimal",
      "body-hash-malformed",
      () => ({ headers: { "X-Claw-Body-SHA256": "a".repeat(64) } }),
    ],
    [
      "a body hash with padding",
      "body-hash-malformed",
      () => ({ headers: { "X-Claw-Body-SHA256": `${"A".repeat(43)}=` } }),
    ],
    [
      "a re-spelled body hash",
      "body-hash-malformed",
      () => ({ headers: { "X-Claw-Body-SHA256": `${"A".repeat(42)}B` } }),
    ],
    ["no proof", "proof-missing", () => ({ headers: { "X-Claw-Proof": null } })],
    ["a proof of 63 bytes", "proof-malformed", () => ({ headers: { "X-Claw-Proof": "A".repeat(84) } })],
    ["a proof of 65 bytes", "proof-malformed", () => ({ headers: { "X-Claw-Proof": "A".repeat(87) } })],
    ["a proof in plain base64", "proof-malformed", () => ({ headers: { "X-Claw-Proof": `${"+".repeat(85)}A` } })],
    ["two proofs that differ", "proof-ambiguous", () => ({ headers: { "X-Claw-Signature": "A".repeat(86) } })],
    ["no access token", "access-missing", () => ({ headers: { "X-Claw-Agent-Access": null } })],
    ["an access token with a space", "access-malformed", () => ({ headers: { "X-Claw-Agent-Access": "a b" } })],
    ["an access token of 5 KB", "access-malformed", () => ({ headers: { "X-Claw-Agent-Access": "a".repeat(5_000) } })],
    ["no recipient", "recipient-missing", () => ({ headers: { "X-Claw-Recipient-Agent-Did": null } })],
    ["a recipient that is no DID", "recipient-malformed", () => ({ headers: { "X-Claw-Recipient-Agent-Did": "bob" } })],
    [
      "a recipient in lower case",
      "recipient-malformed",
      () => ({ headers: { "X-Claw-Recipient-Agent-Did": bob.did.toLowerCase() } }),
    ],
    [
      "two recipients",
      "recipient-malformed",
      () => ({ headers: { "X-Claw-Recipient-Agent-Did": `${bob.did}, ${bob.did}` } }),
    ],
    [
      "a human as recipient",
      "recipient-malformed",
      () => ({ headers: { "X-Claw-Recipient-Agent-Did": String(alice.claims["ownerDid"]) } }),
    ],
    ["itself as recipient", "recipient-is-sender", () => ({ headers: { "X-Claw-Recipient-Agent-Did": alice.did } })],
    ["a body of 1 MiB + 1", "body-too-large", () => ({ body: "x".repeat(MIB + 1) })],
  ])("%s", async (_what, reason, how) => {
    expectRefused(await hook(await how()), reason);
    expect(registryCalls()).toBe(0);
    expect(harness.store.reads).toBe(0);
  });
});

describe("what is fetched or computed decides in the order of the stages", () => {
  test.each<[string, Reason, (h: ChainHarness) => Promise<Signed> | Signed]>([
    ["an unknown kid", "ait-key-unknown", () => withClaims({}, { kid: "nobody's" })],
    ["a revoked kid", "ait-key-revoked", (h) => (h.registry.revokedKids.add(KID), {})],
    ["keys that cannot be fetched", "keys-unavailable", (h) => ((h.registry.down.keys = true), {})],
    [
      "claims under another signature",
      "ait-signature-invalid",
      () =>
        authorization(
          `Claw ${alice.ait.split(".")[0]}.${b64({ ...alice.claims, name: "mallory" })}.${alice.ait.split(".")[2]}`,
        ),
    ],
    [
      "a signature by another key",
      "ait-signature-invalid",
      async () => authorization(`Claw ${await signJws(AIT_HEADER, alice.claims, (await newKeyPair()).privateKey)}`),
    ],
    ["a revoked jti", "ait-revoked", (h) => (h.registry.revokedJtis.add(String(alice.claims["jti"])), {})],
    ["no list of revocations", "crl-unavailable", (h) => ((h.registry.down.crl = "unavailable"), {})],
    ["a list that is too old", "crl-too-old", (h) => ((h.registry.down.crl = "too-old"), {})],
    ["another method than was signed", "proof-invalid", () => ({ sent: { method: "PUT" } })],
    ["another path than was signed", "proof-invalid", () => ({ sent: { path: "/hooks/message" } })],
    [
      "another query than was signed",
      "proof-invalid",
      () => ({ path: "/hooks/agent?a=1", sent: { path: "/hooks/agent?a=2" } }),
    ],
    ["a query that was not signed", "proof-invalid", () => ({ sent: { path: "/hooks/agent?a=1" } })],
    ["another body than was signed", "body-hash-mismatch", () => ({ sent: { body: '{"hello":2}' } })],
    ["another nonce than was signed", "proof-invalid", () => ({ headers: { "X-Claw-Nonce": "another" } })],
    [
      "another timestamp than was signed",
      "proof-invalid",
      () => ({ headers: { "X-Claw-Timestamp": String(NOW_SECONDS + 1) } }),
    ],
    ["a proof of zeros", "proof-invalid", () => ({ headers: { "X-Claw-Proof": "A".repeat(86) } })],
    [
      "a recipient that nobody knows",
      "peer-not-trusted",
      async () => ({ headers: { "X-Claw-Recipient-Agent-Did": (await newAgent()).did } }),
    ],
    ["a trust store that fails", "trust-unavailable", (h) => ((h.store.down = true), {})],
    ["an access token that is not valid", "access-invalid", (h) => (h.registry.invalidAccess.add(ACCESS_TOKEN), {})],
  ])("%s", async (_what, reason, how) => {
    expectRefused(await hook(await how(harness)), reason);
  });

  test("a proof by another agent's key is refused", async () => {
    const mallory = await newAgent();
    expectRefused(await hook({}, { ...mallory, ait: alice.ait, claims: alice.claims }), "proof-invalid");
  });

  test("a refusal by a stage asks nothing of the stages after it", async () => {
    harness.registry.revokedJtis.add(String(alice.claims["jti"]));
    expectRefused(await hook(), "ait-revoked");
    expect(harness.registry.calls).toEqual({ keys: 1, crl: 1, access: 0 });
    expect(harness.store.reads).toBe(0);
  });

  test("a registry that cannot validate access leaves the decision to the gate", async () => {
    harness.registry.down.access = true;
    expect(passedAgent(await hook()).access).toEqual({ keyHash: "key-hash", validatedAtMs: null });
  });
});

describe("a remembered token", () => {
  test("is refused at its exp without asking for a key", async () => {
    await hook();
    harness.nowMs += 3_600_000;
    const result = await hook({ timestamp: String(harness.nowMs / 1_000) });
    expect(result.ok ? null : result.error.reason).toBe("ait-expired");
    expect(harness.registry.calls.keys).toBe(1);
    expect(harness.tokens.size()).toBe(0);
  });

  test("is worth nothing once its key is revoked", async () => {
    await hook();
    harness.registry.revokedKids.add(KID);
    const result = await hook();
    expect(result.ok ? null : result.error.reason).toBe("ait-key-revoked");
  });

  test("still meets every other stage", async () => {
    await hook();
    harness.registry.revokedJtis.add(String(alice.claims["jti"]));
    const result = await hook();
    expect(result.ok ? null : result.error.reason).toBe("ait-revoked");
  });

  test("one that was refused is not remembered", async () => {
    await hook(authorization(`Claw ${await signJws(AIT_HEADER, alice.claims, (await newKeyPair()).privateKey)}`));
    expect(harness.tokens.size()).toBe(0);
  });
});

const reasonOf = (result: Result<Passed, ProxyError>) => (result.ok ? "accepted" : result.error.reason);

describe("a signed request that trust or access refuses", () => {
  test("costs one look at the store, however often it is sent, and is limited", async () => {
    harness = newChainHarness({ rateLimitPerAgent: 10 });
    harness.trusts(alice.did, bob.did);
    const stranger = await newAgent();
    const request = await signedRequest(alice, stranger.did);
    const codes = [];
    for (let count = 0; count < 200; count += 1) {
      const result = await harness.chain.authenticate(request.clone(), HOOK, harness.scope);
      codes.push(result.ok ? "accepted" : result.error.code);
    }
    expect(harness.store.reads).toBe(1);
    expect(codes.slice(0, 10)).toEqual(Array.from({ length: 10 }, () => "PROXY_AUTH_FORBIDDEN"));
    expect(new Set(codes.slice(10))).toEqual(new Set(["PROXY_RATE_LIMIT_EXCEEDED"]));
    expect(reasonOf(await hook({}, bob, stranger.did))).toBe("peer-not-trusted");
    expect((await hook()).ok).toBe(true);
  });

  test("is limited by its key where each is signed anew, before the next look", async () => {
    harness = newChainHarness({ rateLimitPerAgent: 10 });
    const stranger = await newAgent();
    for (let count = 0; count < 10; count += 1)
      expect(reasonOf(await hook({}, alice, stranger.did))).toBe("peer-not-trusted");
    const limited = await hook({}, alice, stranger.did);
    expect(reasonOf(limited)).toBe("refused-too-often");
    expect(limited.ok ? null : limited.error.retryAfterMs).toBe(60_000);
    expect(harness.store.reads).toBe(10);
    harness = newChainHarness({ rateLimitPerAgent: 10 });
    harness.trusts(alice.did, bob.did);
    harness.registry.invalidAccess.add("odd");
    for (let count = 0; count < 20; count += 1) await hook({ headers: { "X-Claw-Agent-Access": "odd" } });
    expect(harness.registry.calls.access).toBe(10);
  });

  test("is looked at again after a while, since a pairing may have come", async () => {
    const stranger = await newAgent();
    const request = await signedRequest(alice, stranger.did);
    expect(reasonOf(await harness.chain.authenticate(request.clone(), HOOK, harness.scope))).toBe("peer-not-trusted");
    harness.trusts(alice.did, stranger.did);
    expect((await hook({}, alice, stranger.did)).ok).toBe(true);
    harness.nowMs += 10_000;
    expect((await harness.chain.authenticate(request.clone(), HOOK, harness.scope)).ok).toBe(true);
  });
});

test("chain: the room of a body is given back once its caller is known", async () => {
  await hook({ body: "x".repeat(10_000) });
  expect(harness.bodies.heldBytes()).toBe(0);
  expect(reasonOf(await hook({ body: "x", headers: { "X-Claw-Body-SHA256": "A".repeat(43) } }))).toBe(
    "body-hash-mismatch",
  );
  expect(harness.bodies.heldBytes()).toBe(0);
  const headers = { Authorization: `Bearer spk_${"k".repeat(43)}` };
  const request = new Request("https://proxy.example.com/rpc", { method: "POST", body: "x".repeat(10_000), headers });
  const needs: RouteNeeds = { route: "rpc", accepts: ["apiKey"], access: false, recipient: false };
  const passed = await harness.chain.authenticate(request, needs, harness.scope);
  expect(harness.bodies.heldBytes(harness.scope.address ?? "")).toBeGreaterThanOrEqual(10_000);
  if (passed.ok) harness.chain.conclude(passed.value, { reason: "gate-credential-refused" }, harness.scope);
  expect(harness.bodies.heldBytes()).toBe(0);
});

describe("replay", () => {
  test("a nonce that the gate took is refused here at its second use", async () => {
    const passed = passedAgent(await hook({ nonce: "once" }));
    harness.chain.conclude(passed, null, harness.scope);
    const again = await hook({ nonce: "once" });
    expect(again.ok ? null : again.error.code).toBe("PROXY_AUTH_REPLAY");
  });

  test("a nonce that the gate refused as replayed is refused here without a hop", async () => {
    const passed = passedAgent(await hook({ nonce: "before-this-isolate" }));
    expect(harness.chain.conclude(passed, { reason: "gate-nonce-replayed" }, harness.scope)?.code).toBe(
      "PROXY_AUTH_REPLAY",
    );
    const again = await hook({ nonce: "before-this-isolate" });
    expect(again.ok ? null : again.error.reason).toBe("nonce-seen-here");
  });

  test.each<Reason>(["gate-rate-exceeded", "gate-outbox-full", "gate-peer-fenced", "gate-unavailable"])(
    "a request that the gate refused for %s may be repeated with its nonce",
    async (reason) => {
      const passed = passedAgent(await hook({ nonce: "again" }));
      harness.chain.conclude(passed, { reason }, harness.scope);
      expect((await hook({ nonce: "again" })).ok).toBe(true);
    },
  );

  test("two agents may use the same nonce", async () => {
    harness.chain.conclude(passedAgent(await hook({ nonce: "shared" })), null, harness.scope);
    expect((await hook({ nonce: "shared" }, bob, alice.did)).ok).toBe(true);
  });
});

describe("trust that is newer than what is remembered", () => {
  test("a pairing made anew is found when the gate says that the remembered one is out", async () => {
    const passed = passedAgent(await hook());
    expect(passed.trust?.epoch).toBe(1);
    harness.trusts(alice.did, bob.did, 3);
    expect(passedAgent(await hook()).trust?.epoch).toBe(1);
    const again = await harness.chain.rejudgeTrust(passed, harness.scope);
    expect(again.ok && again.value.trust?.epoch).toBe(3);
    expect(passedAgent(await hook()).trust?.epoch).toBe(3);
  });

  test("a removed peer is refused when trust is judged again", async () => {
    const passed = passedAgent(await hook());
    harness.store.pairs.clear();
    const again = await harness.chain.rejudgeTrust(passed, harness.scope);
    expect(again.ok ? null : again.error.code).toBe("PROXY_AUTH_FORBIDDEN");
    expect(lastDecision()?.fields).toMatchObject({ reason: "peer-not-trusted" });
  });
});

describe("what a route asks for", () => {
  const EVERYBODY: RouteNeeds = {
    route: "rpc",
    accepts: ["agent", "device", "shared", "apiKey", "operator"],
    access: true,
    recipient: false,
  };
  const REFRESH: RouteNeeds = { route: "auth.refresh", accepts: ["agent"], access: false, recipient: false };

  test("other agent-signed requests pass the trust stage without being asked", async () => {
    const result = await harness.chain.authenticate(await signedRequest(alice, null), EVERYBODY, harness.scope);
    expect(passedAgent(result).trust).toBeNull();
    expect(harness.store.reads).toBe(0);
  });

  test("a refresh passes without an access token", async () => {
    const request = await signedRequest(alice, null, { headers: { "X-Claw-Agent-Access": null } });
    const result = await harness.chain.authenticate(request, REFRESH, harness.scope);
    expect(passedAgent(result).access).toBeNull();
    expect(harness.registry.calls.access).toBe(0);
  });

  test("pairing passes without an access token, and one that is sent is judged", async () => {
    const needs: RouteNeeds = { ...REFRESH, route: "pair.start", access: "if-sent" };
    const without = await signedRequest(alice, null, { headers: { "X-Claw-Agent-Access": null } });
    expect(passedAgent(await harness.chain.authenticate(without, needs, harness.scope)).access).toBeNull();
    expect(harness.registry.calls.access).toBe(0);
    const withOne = await signedRequest(alice, null);
    expect(passedAgent(await harness.chain.authenticate(withOne, needs, harness.scope)).access).not.toBeNull();
    const malformed = await signedRequest(alice, null, { headers: { "X-Claw-Agent-Access": "has a space" } });
    const refused = await harness.chain.authenticate(malformed, needs, harness.scope);
    expect(refused.ok ? null : refused.error.code).toBe("PROXY_AGENT_ACCESS_INVALID");
  });

  test("a GET without a body is signed with the hash of nothing", async () => {
    const request = await signedRequest(alice, null, { method: "GET", path: "/pair/peers", body: "" });
    expect((await harness.chain.authenticate(request, EVERYBODY, harness.scope)).ok).toBe(true);
  });

  const by = (authorizationValue: string, headers: Record<string, string> = {}): Promise<Result<Passed, ProxyError>> =>
    harness.chain.authenticate(
      new Request("https://proxy.example.com/rpc", {
        method: "POST",
        headers: { Authorization: authorizationValue, ...headers },
        body: "{}",
      }),
      EVERYBODY,
      harness.scope,
    );

  test("the operator passes by either of two tokens", async () => {
    for (const token of [OPERATOR_TOKEN, "the-next-operator-token-0123456789abcd"]) {
      const result = await by(`Bearer ${token}`);
      expect(result.ok && result.value.kind).toBe("operator");
    }
  });

  test("a device's token and proof are sealed for the gate: its hash, never itself", async () => {
    const secret = `spd_${"A".repeat(43)}`;
    const request = await signedRequest(alice, null, {
      path: "/rpc",
      headers: { Authorization: `Device ${secret}`, "X-Claw-Agent-Did": alice.did },
    });
    const result = await harness.chain.authenticate(request, EVERYBODY, harness.scope);
    if (!result.ok || result.value.kind !== "credential") throw new Error("no credential");
    expect(result.value.credential).toMatchObject({
      kind: "device",
      agentDid: alice.did,
      tokenHash: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/) as string,
      proof: { signedTexts: [expect.stringContaining("POST\n/rpc\n")] },
    });
    expect(JSON.stringify(result.value.credential)).not.toContain(secret);
  });

  test("shared secrets and API keys are sealed for the gate", async () => {
    const shared = await by(`Shared sps_${"B".repeat(43)}`, { "X-Claw-Agent-Did": alice.did });
    expect(shared.ok && shared.value.kind === "credential" && shared.value.credential).toMatchObject({
      kind: "shared",
      agentDid: alice.did,
    });
    const apiKey = await by(`Bearer spk_${"C".repeat(43)}`);
    expect(apiKey.ok && apiKey.value.kind === "credential" && apiKey.value.credential.kind).toBe("apiKey");
  });

  test.each<[string, string, Record<string, string>]>([
    ["a wrong operator token", `Bearer ${OPERATOR_TOKEN}x`, {}],
    ["an empty bearer", "Bearer", {}],
    ["an API key that is too short", "Bearer spk_abc", {}],
    ["a bearer of 2 KB", `Bearer ${"a".repeat(2_048)}`, {}],
    ["a device token of another kind", `Device sps_${"A".repeat(43)}`, { "X-Claw-Agent-Did": "did" }],
    ["a device token without its agent", `Device spd_${"A".repeat(43)}`, {}],
    ["a shared secret for something that is no agent", `Shared sps_${"A".repeat(43)}`, { "X-Claw-Agent-Did": "did:x" }],
  ])("%s is refused by the one code that says no more", async (_what, value, headers) => {
    const result = await by(value, headers);
    expect(result.ok ? null : result.error.code).toBe("PROXY_AUTH_INVALID_TOKEN");
    expect(registryCalls()).toBe(0);
  });

  test("a device's proof over another body is refused", async () => {
    const request = await signedRequest(alice, null, {
      path: "/rpc",
      headers: { Authorization: `Device spd_${"A".repeat(43)}`, "X-Claw-Agent-Did": alice.did },
      sent: { body: "{}" },
    });
    const result = await harness.chain.authenticate(request, EVERYBODY, harness.scope);
    expect(result.ok ? null : result.error.code).toBe("PROXY_AUTH_INVALID_PROOF");
  });

  test("a bearer at a route for agents and API keys alone is no operator", async () => {
    const needs: RouteNeeds = { ...EVERYBODY, accepts: ["agent", "apiKey"] };
    const request = new Request("https://proxy.example.com/x", {
      headers: { Authorization: `Bearer ${OPERATOR_TOKEN}` },
    });
    const result = await harness.chain.authenticate(request, needs, harness.scope);
    expect(result.ok ? null : result.error.code).toBe("PROXY_AUTH_INVALID_TOKEN");
  });
});

test("requests that are refused leave no nonce and no token behind", async () => {
  for (let round = 0; round < 50; round += 1) {
    await hook(await withClaims({}, { kid: `nobody-${round}` }));
    await hook({ nonce: `refused-${round}`, sent: { path: "/elsewhere" } });
  }
  expect(harness.replays.size()).toBe(0);
  expect(harness.tokens.size()).toBe(1);
});

test("the recipient of a passed send is an agent DID", async () => {
  const { trust } = passedAgent(await hook());
  const recipientDid: AgentDid | null = trust?.kind === "pair" ? trust.recipientDid : null;
  expect(recipientDid).toBe(bob.did);
});
