/** What a sender that is paired may get wrong about a message. */
import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type Answer, hookOf, request, send, type Signed, signedHeaders } from "../support/program/agents.ts";
import { proofHeaders } from "../support/signing.ts";
import { head, rawHttp } from "./raw-http.ts";
import { connectRelay } from "../support/program/relay-client.ts";
import {
  alice,
  bob,
  expectNoHarm,
  expectProblem,
  expectRawProblem,
  hook,
  MIB,
  proxy,
  sendWith,
  serveForBadInput,
  UNKNOWN,
  until,
} from "./bad-input.ts";

serveForBadInput({ arePaired: true });

const once = (payload: unknown): Promise<Answer> =>
  request(proxy.url, alice, hookOf(bob.did, payload, { "Idempotency-Key": "once" }));

describe("a sender that is paired", () => {
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

test("after all that nothing has failed inside, and no secret has been printed", expectNoHarm);

/** The signed headers of a body that is no text. */
function signedBytes(bytes: Uint8Array, nonce: string): Record<string, string> {
  const signed = hook();
  const proof = proofHeaders(alice.privateKey, { method: "POST", path: "/hooks/agent", body: bytes, nonce });
  return { ...signedHeaders(alice, signed), ...proof };
}
