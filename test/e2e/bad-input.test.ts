/** Everything that a caller can get wrong, against the real program: the exact answer, never a 500, and nothing fetched for it. */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Agent,
  type Answer,
  hookOf,
  operator,
  pair,
  request,
  send,
  type Signed,
  signedHeaders,
} from "../support/program/agents.ts";
import {
  keysDocument,
  REGISTRY_ISSUER,
  type RegistryServer,
  startRegistry,
} from "../support/program/registry-server.ts";
import { proofHeaders } from "../support/signing.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { head, type RawAnswer, rawHttp } from "./raw-http.ts";
import { connectRelay, openRelay, type RelayClient, ulid } from "../support/program/relay-client.ts";

const MIB = 1_048_576;
const UNKNOWN = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000000";

let registry: RegistryServer;
let proxy: Proxy;
let alice: Agent;
let bob: Agent;
/** Whoever asks the registry about this one's key causes a refresh. */
let stranger: Agent;

beforeAll(async () => {
  registry = await startRegistry();
  const revoked = registry.newKey("kid-revoked");
  registry.serve("keys", {
    status: 200,
    body: keysDocument(registry.key.entry, { ...revoked.entry, status: "revoked" }),
  });
  proxy = await startProxy({ REGISTRY_URL: registry.url, REGISTRY_ISSUER, RATE_LIMIT_PER_AGENT: "0" });
  alice = registry.issue();
  bob = registry.issue();
  stranger = registry.issue();
  stranger.ait = strangersAit();
  // Housekeeping keeps the list fresh by itself; what is counted afterwards is what requests cost.
  await until(
    async () => registry.calls,
    ({ keys, crl }) => keys > 0 && crl > 0,
  );
}, 120_000);
afterAll(async () => {
  await proxy?.stop();
  await registry?.down();
});

/** The shape of RFC 9457 and of the contract, and the headers that belong to a status. */
function expectProblem(
  answer: { status: number; headers: { get(name: string): string | null | undefined }; body: unknown },
  status: number,
  code: string,
): void {
  expect({ status: answer.status, code: (answer.body as { code?: unknown }).code }).toEqual({ status, code });
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.body).toEqual({
    type: expect.stringMatching(/^urn:/),
    title: expect.stringMatching(/./),
    status,
    detail: expect.stringMatching(/./),
    code,
    requestId: answer.headers.get("x-request-id"),
  });
  if (status === 401) expect(answer.headers.get("www-authenticate")).toMatch(/realm=/);
  if (status === 429 || status === 503) expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
}

function expectRawProblem({ status, headers, body }: RawAnswer, expectedStatus: number, code: string): void {
  expectProblem({ status, headers, body: JSON.parse(body) as unknown }, expectedStatus, code);
}

const hook = (over: Partial<Signed> = {}): Signed => ({ ...hookOf(bob.did, { hello: "bob" }), ...over });

/** A send whose headers are right but for what is changed; undefined takes a header away. */
function sendWith(
  changed: Record<string, string | undefined>,
  signed: Signed = hook(),
  agent: Agent = alice,
): Promise<Answer> {
  const headers = { ...signedHeaders(agent, signed), ...changed };
  return send(
    proxy.url,
    signed,
    Object.fromEntries(Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== undefined)),
  );
}

/** The headers of a request whose proof was made over something else. */
function provenOver(
  other: Partial<{ method: string; path: string; body: string; bodySha256: string }>,
  signed: Signed = hook(),
): Record<string, string> {
  const headers = signedHeaders(alice, signed);
  const { method, path, body = "" } = { ...signed, ...other };
  const [timestamp, nonce] = [headers["X-Claw-Timestamp"], headers["X-Claw-Nonce"]];
  return {
    ...headers,
    ...proofHeaders(alice.privateKey, { method, path, body, bodySha256: other.bodySha256, timestamp, nonce }),
  };
}

/** Right in every way but that no registry knows its key. */
const strangersAit = (over: Record<string, unknown> = {}, header: Record<string, unknown> = {}): string =>
  registry.ait(stranger, over, { key: registry.newKey(randomUUID()), header });
const withAit = (ait: string): Record<string, string> => ({ Authorization: `Claw ${ait}` });
const nowSeconds = (): number => Math.floor(Date.now() / 1_000);

const b64 = (bytes: number): string => Buffer.alloc(bytes, 1).toString("base64url");

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

const once = (payload: unknown): Promise<Answer> =>
  request(proxy.url, alice, hookOf(bob.did, payload, { "Idempotency-Key": "once" }));

describe("a sender that is paired", () => {
  beforeAll(async () => {
    expect(await pair(proxy.url, alice, bob)).toMatchObject({ status: 201 });
  });

  test("is refused a recipient that nobody knows like one that it does not trust", async () => {
    expectProblem(await request(proxy.url, alice, hookOf(UNKNOWN, {})), 403, "PROXY_AUTH_FORBIDDEN");
  });

  test("is refused with an access token that the registry does not know", async () => {
    expectProblem(await sendWith({ "X-Claw-Agent-Access": "bad" }), 401, "PROXY_AGENT_ACCESS_INVALID");
  });

  test.each<[string, Signed["headers"], number, string]>([
    ["text/plain", { "Content-Type": "text/plain" }, 415, "PROXY_UNSUPPORTED_MEDIA_TYPE"],
    ["a form", { "Content-Type": "application/x-www-form-urlencoded" }, 415, "PROXY_UNSUPPORTED_MEDIA_TYPE"],
    ["a type that only begins like JSON", { "Content-Type": "application/jsonp" }, 415, "PROXY_UNSUPPORTED_MEDIA_TYPE"],
    ["a conversation of 257 characters", { "X-Claw-Conversation-Id": "c".repeat(257) }, 400, "PROXY_BAD_REQUEST"],
    [
      "a receipt URL that is not of the web",
      { "X-Claw-Delivery-Receipt-Url": "ftp://r.example/" },
      400,
      "PROXY_BAD_REQUEST",
    ],
    [
      "a receipt URL with a password",
      { "X-Claw-Delivery-Receipt-Url": "https://a:b@r.example/" },
      400,
      "PROXY_BAD_REQUEST",
    ],
    ["an idempotency key of 256 characters", { "Idempotency-Key": "k".repeat(256) }, 400, "PROXY_BAD_REQUEST"],
    ["an idempotency key with a space", { "Idempotency-Key": "k k" }, 400, "PROXY_BAD_REQUEST"],
  ])("is refused %s", async (_, headers, status, code) => {
    expectProblem(await request(proxy.url, alice, hookOf(bob.did, {}, headers)), status, code);
  });

  test.each<[string, Signed["headers"]]>([
    ["JSON with a character set", { "Content-Type": "application/json; charset=utf-8" }],
    ["a JSON dialect", { "Content-Type": "application/problem+json" }],
    ["a preference that nobody understands", { Prefer: "wait=soon, respond-async" }],
    ["a trace that is none", { traceparent: "nonsense" }],
  ])("is taken %s", async (_, headers) => {
    expect((await request(proxy.url, alice, hookOf(bob.did, {}, headers))).status).toBe(202);
  });

  test("under an idempotency key is refused another body, and told the same id for the same", async () => {
    const [first, again] = [await once({ a: 1 }), await once({ a: 1 })];
    expect(again.body["deliveryId"]).toBe(first.body["deliveryId"]);
    expectProblem(await once({ a: 2 }), 409, "PROXY_CONFLICT");
  });

  test("is refused a replay", async () => {
    const headers = signedHeaders(alice, hook());
    expect((await send(proxy.url, hook(), headers)).status).toBe(202);
    expectProblem(await send(proxy.url, hook(), headers), 401, "PROXY_AUTH_REPLAY");
  });

  test.each<[string, Uint8Array]>([
    ["invalid UTF-8", Buffer.from([0x22, 0xc3, 0x28, 0x22])],
    ["what is not JSON", Buffer.from("{hello}")],
    ["nothing", Buffer.from("")],
    ["JSON with something behind it", Buffer.from("{}{}")],
    ["JSON behind a byte order mark", Buffer.from([0xef, 0xbb, 0xbf, 0x7b, 0x7d])],
    ["a raw control character", Buffer.from([0x22, 0x01, 0x22])],
  ])("is refused %s, and the nonce is not used up", async (_, bytes) => {
    const nonce = randomUUID();
    const headers = signedBytes(bytes, nonce);
    const answer = await rawHttp(proxy.url, [
      head("POST", "/hooks/agent", [
        ...Object.entries(headers),
        ["Host", "x"],
        ["Connection", "close"],
        ["Content-Length", String(bytes.length)],
      ]),
      bytes,
    ]);
    expectRawProblem(answer, 400, "PROXY_HOOK_INVALID_JSON");
    expect((await request(proxy.url, alice, { ...hook(), nonce })).status).toBe(202);
  });

  test("is refused a body of 1 MiB and a byte in chunks, cleanly, and nothing is kept of it", async () => {
    const nonce = randomUUID();
    const body = Buffer.alloc(MIB + 1, "1");
    const headers = signedBytes(body, nonce);
    const pieces: (string | Uint8Array)[] = [
      head("POST", "/hooks/agent", [
        ...Object.entries(headers),
        ["Host", "x"],
        ["Connection", "close"],
        ["Transfer-Encoding", "chunked"],
      ]),
    ];
    for (let at = 0; at < body.length; at += 65_536) {
      const piece = body.subarray(at, at + 65_536);
      pieces.push(`${piece.length.toString(16)}\r\n`, piece, "\r\n");
    }
    pieces.push("0\r\n\r\n");
    expectRawProblem(await rawHttp(proxy.url, pieces), 413, "PROXY_BODY_TOO_LARGE");
    expect((await request(proxy.url, alice, { ...hook(), nonce })).status).toBe(202);
  });

  test("may send exactly 1 MiB, and JSON nested as deeply as it fits; both arrive as they are", async () => {
    const relay = await connectRelay(proxy.url, bob);
    const bodies = [`"${"x".repeat(MIB - 2)}"`, "[".repeat(MIB / 2) + "]".repeat(MIB / 2)];
    for (const body of bodies) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const answer = await request(proxy.url, alice, {
        ...hook(),
        body,
        headers: { "X-Claw-Recipient-Agent-Did": bob.did, Prefer: "wait=15" },
      });
      expect(answer).toMatchObject({ status: 202, body: { state: "delivered" } });
      const { deliveryId } = answer.body as unknown as { deliveryId: string };
      const text = relay.texts.find((each) => each.includes(deliveryId)) ?? "";
      expect(text.endsWith(`"payload":${body}}`)).toBe(true);
      expect(Buffer.byteLength(text)).toBeLessThanOrEqual(MIB + 16_384);
    }
    relay.close();
    await relay.closed;
  });

  test("cannot spoil its recipient's dead letters by nesting", async () => {
    const relay = await connectRelay(proxy.url, bob, false);
    const answer = await request(proxy.url, alice, { ...hook(), body: "[".repeat(100_000) + "]".repeat(100_000) });
    const { deliveryId } = answer.body as unknown as { deliveryId: string };
    relay.acknowledge(await relay.next((frame) => frame["deliveryId"] === deliveryId), false, "too deep");
    const listed = await until(
      () => request(proxy.url, bob, { method: "GET", path: "/v1/dead-letters?limit=1" }),
      ({ body }) => (body["deadLetters"] as unknown as unknown[]).length === 1,
    );
    const [letter] = listed.body["deadLetters"] as unknown as [{ id: string; reason: string; payload: unknown }];
    expect([listed.status, letter.id, letter.reason]).toEqual([200, deliveryId, "too deep"]);
    // As it was sent; compared by hand, since a matcher would go as deep.
    let depth = 0;
    for (let inner = letter.payload; Array.isArray(inner); inner = inner[0] as unknown) depth += 1;
    expect(depth).toBe(100_000);
    relay.close();
    await relay.closed;
  });

  test.each<[string, (headers: [string, string][]) => [string, string][], number, string]>([
    ["Authorization", (all) => [...all, ["Authorization", `Claw ${bob.ait}`]], 401, "PROXY_AUTH_INVALID_AIT"],
    ["X-Claw-Timestamp", (all) => [...all, ["X-Claw-Timestamp", "1"]], 401, "PROXY_AUTH_INVALID_TIMESTAMP"],
    ["X-Claw-Nonce", (all) => [...all, ["X-Claw-Nonce", "another"]], 401, "PROXY_AUTH_INVALID_NONCE"],
    ["X-Claw-Proof", (all) => [...all, ["X-Claw-Proof", "another"]], 401, "PROXY_AUTH_INVALID_PROOF"],
    [
      "X-Claw-Recipient-Agent-Did",
      (all) => [...all, ["X-Claw-Recipient-Agent-Did", UNKNOWN]],
      400,
      "PROXY_HOOK_RECIPIENT_INVALID",
    ],
    [
      "Idempotency-Key",
      (all) => [...all, ["Idempotency-Key", "a"], ["Idempotency-Key", "b"]],
      400,
      "PROXY_BAD_REQUEST",
    ],
  ])("that repeats %s is refused", async (_, repeated, status, code) => {
    const signed = hook();
    const headers = repeated(Object.entries(signedHeaders(alice, signed)));
    const body = signed.body ?? "";
    const answer = await rawHttp(proxy.url, [
      head("POST", "/hooks/agent", [
        ...headers,
        ["Host", "x"],
        ["Connection", "close"],
        ["Content-Length", String(body.length)],
      ]),
      body,
    ]);
    expectRawProblem(answer, status, code);
  });

  test.each([
    ["a bare carriage return", "a\rX-Evil: 1"],
    ["a null byte", "a\u0000b"],
    ["a control character", "a\u0001b"],
    ["a folded line", "a\r\n b"],
  ])("with %s in a header is refused or read as harmless text", async (_, value) => {
    const signed = hook();
    const headers: [string, string][] = [
      ...Object.entries(signedHeaders(alice, signed)),
      ["X-Claw-Conversation-Id", value],
    ];
    const body = signed.body ?? "";
    const answer = await rawHttp(proxy.url, [
      head("POST", "/hooks/agent", [
        ...headers,
        ["Host", "x"],
        ["Connection", "close"],
        ["Content-Length", String(body.length)],
      ]),
      body,
    ]);
    expect([202, 400]).toContain(answer.status);
    expect(answer.headers.has("x-evil")).toBe(false);
  });

  test("reaches the hook by its other name, signed for that", async () => {
    expect((await request(proxy.url, alice, { ...hook(), path: "/hooks/message" })).status).toBe(202);
    expectProblem(
      await send(proxy.url, { ...hook(), path: "/hooks/message" }, signedHeaders(alice, hook())),
      401,
      "PROXY_AUTH_INVALID_PROOF",
    );
  });
});

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

const events = (relay: RelayClient) => relay.frames.filter(({ type }) => type === "event");

describe("a relay socket", () => {
  test.each<[string, string | Uint8Array<ArrayBuffer>]>([
    ["no JSON", "hello"],
    ["no object", "[]"],
    ["an unknown type", '{"v":1,"type":"nonsense","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z"}'],
    [
      "a type of the server's",
      '{"v":1,"type":"deliver","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z"}',
    ],
    ["another version", '{"v":2,"type":"heartbeat","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z"}'],
    ["an id that is no ULID", '{"v":1,"type":"heartbeat","id":"1","ts":"2026-01-01T00:00:00Z"}'],
    [
      "an enqueue without a payload",
      `{"v":1,"type":"enqueue","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z","toAgentDid":"${UNKNOWN}"}`,
    ],
    [
      "an enqueue with two payloads",
      `{"v":1,"type":"enqueue","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z","toAgentDid":"${UNKNOWN}","payload":1,"payload":2}`,
    ],
    ["bytes", new Uint8Array([0x7b, 0x7d])],
  ])("is told that %s is no frame, and goes on", async (_, frame) => {
    const relay = await connectRelay(proxy.url, bob);
    relay.sendRaw(frame);
    expect(await relay.next(({ type }) => type === "event")).toMatchObject({
      event: "error",
      payload: { code: "MALFORMED_FRAME" },
      seq: 1,
    });
    relay.send({ type: "heartbeat" });
    await relay.next(({ type }) => type === "heartbeat_ack");
    relay.close();
    await relay.closed;
  });

  test("is closed with 1008 at the tenth", async () => {
    const relay = await connectRelay(proxy.url, bob);
    for (let n = 0; n < 12; n++) relay.sendText("{");
    expect(await relay.closed).toMatchObject({ code: 1008 });
    expect(events(relay)).toHaveLength(10);
  });

  test("is closed with 1009 by a frame of more than 1 MiB", async () => {
    const relay = await connectRelay(proxy.url, bob);
    relay.sendText(JSON.stringify({ type: "x".repeat(MIB) }));
    expect(await relay.closed).toMatchObject({ code: 1009 });
  });

  test("gets its heartbeat acknowledged by id", async () => {
    const relay = await connectRelay(proxy.url, bob);
    const id = ulid();
    relay.send({ type: "heartbeat", id });
    expect(await relay.next(({ type }) => type === "heartbeat_ack")).toMatchObject({ v: 1, ackId: id });
    relay.close();
    expect(await relay.closed).toMatchObject({ code: 1000 });
  });

  test.each<[string, () => string, string]>([
    ["a peer that it does not trust", () => UNKNOWN, "PROXY_AUTH_FORBIDDEN"],
    ["itself", () => alice.did, "PROXY_HOOK_RECIPIENT_INVALID"],
  ])("may not enqueue for %s", async (_, to, reason) => {
    const relay = await connectRelay(proxy.url, alice);
    const id = ulid();
    relay.send({ type: "enqueue", id, toAgentDid: to(), payload: {} });
    expect(await relay.next(({ type }) => type === "enqueue_ack")).toMatchObject({
      ackId: id,
      accepted: false,
      reason,
    });
    relay.close();
    await relay.closed;
  });

  test("may repeat a frame: the same message, not a second; another body under its id is refused", async () => {
    const relay = await connectRelay(proxy.url, alice);
    const id = ulid();
    for (const payload of [{ n: 1 }, { n: 1 }, { n: 2 }])
      relay.send({ type: "enqueue", id, toAgentDid: bob.did, payload });
    const acks = () => relay.frames.filter(({ type }) => type === "enqueue_ack");
    await until(
      async () => acks().length,
      (count) => count === 3,
    );
    const [first, second, third] = acks();
    expect(first).toMatchObject({ accepted: true });
    expect(second).toMatchObject({ accepted: true, deliveryId: first?.["deliveryId"] });
    expect(third).toMatchObject({ accepted: false, reason: "PROXY_CONFLICT" });
    relay.close();
    await relay.closed;
  });

  test("is superseded by a newer one of the agent", async () => {
    const older = await connectRelay(proxy.url, bob);
    const newer = await connectRelay(proxy.url, bob);
    expect(await older.closed).toEqual({ code: 1000, reason: "superseded" });
    newer.send({ type: "heartbeat" });
    await newer.next(({ type }) => type === "heartbeat_ack");
    newer.close();
    expect(await newer.closed).toMatchObject({ code: 1000 });
  });

  test("acknowledging what is not there hears nothing of it and goes on", async () => {
    const relay = await connectRelay(proxy.url, bob);
    relay.send({ type: "deliver_ack", ackId: ulid(), accepted: true });
    relay.send({ type: "heartbeat" });
    await relay.next(({ type }) => type === "heartbeat_ack");
    expect(events(relay)).toEqual([]);
    relay.close();
    await relay.closed;
  });

  test("is opened once by a ticket, and by nothing that only looks like one", async () => {
    const issued = await request(proxy.url, bob, { method: "POST", path: "/v1/relay/tickets", body: "{}" });
    const ticket = issued.body["ticket"] as unknown as string;
    const relay = await openRelay(proxy.url, ticket);
    relay.close();
    await relay.closed;
    const upgrade = (protocol: string): Promise<RawAnswer> =>
      rawHttp(proxy.url, [
        head("GET", "/relay/connect", [
          ["Host", new URL(proxy.url).host],
          ["Connection", "Upgrade"],
          ["Upgrade", "websocket"],
          ["Sec-WebSocket-Version", "13"],
          ["Sec-WebSocket-Key", Buffer.alloc(16).toString("base64")],
          ["Sec-WebSocket-Protocol", protocol],
        ]),
      ]);
    for (const bad of [
      ticket,
      `${ticket.slice(0, -1)}x`,
      "x",
      `spw_${"A".repeat(43)}.${Buffer.from(UNKNOWN).toString("base64url")}`,
    ]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expectRawProblem(await upgrade(`sallyport.ticket.${bad}`), 401, "PROXY_AUTH_INVALID_TOKEN");
    }
  });
});

describe("after all that", () => {
  test("nothing has failed inside, and no secret has been printed", () => {
    const output = proxy.output();
    expect(output).not.toContain('"level":"error"');
    for (const secret of [alice.ait, bob.ait, alice.accessToken, bob.accessToken, alice.ait.split(".")[2] ?? "?"])
      expect(output).not.toContain(secret);
  });
});

/** The signed headers of a body that is no text. */
function signedBytes(bytes: Uint8Array, nonce: string): Record<string, string> {
  const signed = hook();
  const proof = proofHeaders(alice.privateKey, { method: "POST", path: "/hooks/agent", body: bytes, nonce });
  return { ...signedHeaders(alice, signed), ...proof };
}

/** Asks until the answer fits; for what other gates bring about. */
async function until<T>(ask: () => Promise<T>, fits: (answer: T) => boolean): Promise<T> {
  for (let tries = 0; ; tries++) {
    // oxlint-disable-next-line no-await-in-loop -- one look after the other
    const answer = await ask();
    if (fits(answer)) return answer;
    if (tries >= 1_200) throw new Error(`never came: ${JSON.stringify(answer).slice(0, 500)}`);
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
