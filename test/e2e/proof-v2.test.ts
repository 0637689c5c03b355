/** Proofs by HTTP Message Signatures at the running program, signed by implementations that share no code with it. */
import { createHash, randomUUID } from "node:crypto";
import { appendSignature, createSignature, webcrypto } from "http-message-sig";
import { createSigner, httpbis } from "http-message-signatures";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Agent, type Answer, hookOf, pair, register, send, signedHeaders } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

const TAG = "sallyport-proof-v2";
const ALWAYS = ["@method", "@authority", "@path", "@query", "content-digest", "authorization"];
const COVERED_IF_SENT = ["x-claw-agent-access", "x-claw-recipient-agent-did", "x-claw-conversation-id", "content-type"];

let proxy: Proxy;
let alice: Agent;
let bob: Agent;
let aliceKey: CryptoKey;

beforeAll(async () => {
  proxy = await startProxy();
  alice = await register(proxy.url, "alice");
  bob = await register(proxy.url, "bob");
  await pair(proxy.url, alice, bob);
  const jwk = alice.privateKey.export({ format: "jwk" });
  aliceKey = await crypto.subtle.importKey("jwk", jwk as JsonWebKey, { name: "Ed25519" }, true, ["sign"]);
});

afterAll(() => proxy.stop());

const keyidOf = (agent: Agent): string =>
  createHash("sha256").update(`{"crv":"Ed25519","kty":"OKP","x":"${agent.publicX}"}`).digest("base64url");

type Change = {
  parameters?: Record<string, unknown>;
  /** Changed after signing. */
  then?: (headers: Headers) => void;
  url?: string;
  components?: string[];
};

/** A send to Bob, signed by http-message-sig. */
async function signedSend({ parameters = {}, then, url = proxy.url, components }: Change = {}): Promise<Headers> {
  const body = JSON.stringify({ text: "hello" });
  const request = new Request(`${url}/hooks/agent`, {
    method: "POST",
    body,
    headers: {
      authorization: `Claw ${alice.ait}`,
      "x-claw-agent-access": alice.accessToken,
      "x-claw-recipient-agent-did": bob.did,
      "content-type": "application/json",
      "content-digest": `sha-256=:${createHash("sha256").update(body).digest("base64")}:`,
    },
  });
  const created = Math.floor(Date.now() / 1_000);
  const fields = await createSignature(request, {
    label: "any",
    components: components ?? [...ALWAYS, ...COVERED_IF_SENT.filter((name) => request.headers.has(name))],
    parameters: { tag: TAG, created, expires: created + 60, nonce: randomUUID(), keyid: keyidOf(alice), ...parameters },
    signer: webcrypto.signer(aliceKey),
  });
  const headers = appendSignature(request.headers, fields);
  then?.(headers);
  return headers;
}

const post = (headers: Headers, path = "/hooks/agent"): Promise<Answer> =>
  send(proxy.url, { method: "POST", path, body: JSON.stringify({ text: "hello" }) }, Object.fromEntries(headers));

const told = ({ status, body }: Answer): string => `${status} ${String(body["code"] ?? body["state"])}`;

test("proof V2: a send signed by http-message-sig is accepted, once", async () => {
  const headers = await signedSend();
  expect(told(await post(headers))).toMatch(/^202 /);
  expect(told(await post(headers))).toBe("401 PROXY_AUTH_REPLAY");
});

test("proof V2: a send signed by http-message-signatures is accepted", async () => {
  const body = JSON.stringify({ text: "hello" });
  const key = createSigner(alice.privateKey.export({ format: "pem", type: "pkcs8" }), "ed25519", keyidOf(alice));
  const created = Math.floor(Date.now() / 1_000);
  const signed = await httpbis.signMessage(
    {
      key,
      name: "theirs",
      params: ["created", "expires", "nonce", "keyid", "tag"],
      paramValues: {
        created: new Date(created * 1_000),
        expires: new Date((created + 60) * 1_000),
        nonce: randomUUID(),
        tag: TAG,
      },
      fields: [...ALWAYS, "x-claw-agent-access", "x-claw-recipient-agent-did", "content-type"],
    },
    {
      method: "POST",
      url: `${proxy.url}/hooks/agent`,
      headers: {
        authorization: `Claw ${alice.ait}`,
        "x-claw-agent-access": alice.accessToken,
        "x-claw-recipient-agent-did": bob.did,
        "content-type": "application/json",
        "content-digest": `sha-256=:${createHash("sha256").update(body).digest("base64")}:`,
      },
    },
  );
  expect(told(await post(new Headers(signed.headers as Record<string, string>)))).toMatch(/^202 /);
});

test("proof V2: a GET with an empty body needs its digest too", async () => {
  const created = Math.floor(Date.now() / 1_000);
  const request = new Request(`${proxy.url}/pair/peers`, {
    headers: {
      authorization: `Claw ${alice.ait}`,
      "x-claw-agent-access": alice.accessToken,
      "content-digest": `sha-256=:${createHash("sha256").update("").digest("base64")}:`,
    },
  });
  const fields = await createSignature(request, {
    label: "any",
    components: [...ALWAYS, "x-claw-agent-access"],
    parameters: { tag: TAG, created, expires: created + 60, nonce: randomUUID(), keyid: keyidOf(alice) },
    signer: webcrypto.signer(aliceKey),
  });
  const headers = Object.fromEntries(appendSignature(request.headers, fields));
  const answer = await send(proxy.url, { method: "GET", path: "/pair/peers" }, headers);
  expect(answer.status).toBe(200);
});

const NOT_KEPT = "401 PROXY_AUTH_INVALID_SIGNATURE_INPUT";
const NOT_PROVEN = "401 PROXY_AUTH_INVALID_PROOF";

describe("proof V2: what is refused, and with which code", () => {
  test.each<[string, Change, string]>([
    ["another host", { url: "http://other.example.com" }, NOT_PROVEN],
    [
      "another recipient",
      {
        then: (h) =>
          h.set(
            "x-claw-recipient-agent-did",
            alice.did.replace(/.$/, (last) => (last === "0" ? "1" : "0")),
          ),
      },
      NOT_PROVEN,
    ],
    ["a conversation added", { then: (h) => h.set("x-claw-conversation-id", "c-1") }, NOT_KEPT],
    ["an idempotency key added", { then: (h) => h.set("idempotency-key", "k-1") }, NOT_KEPT],
    ["a wait added", { then: (h) => h.set("prefer", "wait=1") }, NOT_KEPT],
    [
      "a digest of another body",
      { then: (h) => h.set("content-digest", `sha-256=:${btoa("x".repeat(32))}:`) },
      NOT_PROVEN,
    ],
    ["no digest", { then: (h) => h.delete("content-digest") }, NOT_KEPT],
    ["a component left out", { components: ALWAYS }, NOT_KEPT],
    ["an expired signature", { parameters: { created: now() - 100, expires: now() - 50 } }, NOT_KEPT],
    [
      "created far ahead",
      { parameters: { created: now() + 400, expires: now() + 460 } },
      "401 PROXY_AUTH_TIMESTAMP_SKEW",
    ],
    ["a life that is too long", { parameters: { expires: now() + 400 } }, NOT_KEPT],
    ["the thumbprint of another key", { parameters: { keyid: "A".repeat(43) } }, NOT_KEPT],
    ["headers of version 1 beside it", { then: (h) => h.set("x-claw-timestamp", String(now())) }, NOT_KEPT],
  ])("proof V2: %s", async (_what, change, expected) => {
    const answer = await post(await signedSend(change));
    expect(told(answer)).toBe(expected);
    expect(answer.headers.get("Accept-Signature")).toContain(`tag="${TAG}"`);
  });

  test("proof V2: a nonce used with version 1 is a replay with version 2", async () => {
    const nonce = randomUUID();
    const first = hookOf(bob.did, { text: "hello" });
    expect(told(await send(proxy.url, first, signedHeaders(alice, { ...first, nonce })))).toMatch(/^202 /);
    expect(told(await post(await signedSend({ parameters: { nonce } })))).toBe("401 PROXY_AUTH_REPLAY");
  });

  test("proof V2: a request without any proof is offered the profile", async () => {
    const answer = await send(proxy.url, hookOf(bob.did, {}), { Authorization: `Claw ${alice.ait}` });
    expect(answer.status).toBe(401);
    expect(answer.headers.get("Accept-Signature")).toBe(
      `sallyport=("@method" "@authority" "@path" "@query" "content-digest" "authorization");created;expires;alg="ed25519";tag="${TAG}"`,
    );
  });
});

function now(): number {
  return Math.floor(Date.now() / 1_000);
}
