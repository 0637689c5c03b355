/** What a caller may get wrong about fetching messages and about receipts, over the real program. */
import { describe, expect, test } from "vitest";
import { operator, request, type Signed } from "../support/program/agents.ts";
import { alice, bob, expectNoHarm, expectProblem, hook, MIB, proxy, serveForBadInput, UNKNOWN } from "./bad-input.ts";

serveForBadInput({ arePaired: true });

const post = (path: string, body: unknown): Signed => ({ method: "POST", path, body: JSON.stringify(body) });
const get = (path: string): Signed => ({ method: "GET", path });
const ID = "01K00000000000000000000000";

describe("fetching", () => {
  test.each([
    "limit=0",
    "limit=101",
    "limit=x",
    "limit=1.5",
    "limit=-1",
    "limit=",
    "waitSeconds=26",
    "waitSeconds=-1",
    "waitSeconds=0.5",
    "waitSeconds=x",
    "waitSeconds=99999999999999999999",
  ])("with %s is refused at once", async (query) => {
    const begunAtMs = performance.now();
    expectProblem(await request(proxy.url, bob, get(`/v1/inbox?${query}`)), 400, "PROXY_BAD_REQUEST");
    expect(performance.now() - begunAtMs).toBeLessThan(20_000);
  });

  test.each<[string, unknown]>([
    ["a list", []],
    ["null", null],
    ["no acknowledgements", {}],
    ["acknowledgements that are none", { acks: [1, "x", null] }],
    ["no delivery id", { acks: [{ accepted: true }] }],
    ["an empty delivery id", { acks: [{ deliveryId: "", accepted: true }] }],
    ["a delivery id with a slash", { acks: [{ deliveryId: "a/b", accepted: true }] }],
    ["a delivery id of 513 characters", { acks: [{ deliveryId: "x".repeat(513), accepted: true }] }],
    ["an answer that is neither", { acks: [{ deliveryId: ID, accepted: "yes" }] }],
    ["a reason that is no text", { acks: [{ deliveryId: ID, accepted: false, reason: 1 }] }],
    ["a time before now", { acks: [{ deliveryId: ID, accepted: false, retryAfterMs: -1 }] }],
    ["a time beyond an hour", { acks: [{ deliveryId: ID, accepted: false, retryAfterMs: 3_600_001 }] }],
    ["a part of a millisecond", { acks: [{ deliveryId: ID, accepted: false, retryAfterMs: 0.5 }] }],
    ["101 of them", { acks: Array.from({ length: 101 }, () => ({ deliveryId: ID, accepted: true })) }],
  ])("an acknowledgement with %s is refused", async (_, body) => {
    expectProblem(await request(proxy.url, bob, post("/v1/inbox/ack", body)), 400, "PROXY_BAD_REQUEST");
  });

  test("a body that is no JSON, or too large, is refused; what nobody holds, and none at all, acknowledge nothing", async () => {
    const path = "/v1/inbox/ack";
    expectProblem(await request(proxy.url, bob, { method: "POST", path, body: '{"acks":[' }), 400, "PROXY_BAD_REQUEST");
    const large = JSON.stringify({ acks: [], more: "x".repeat(MIB) });
    expectProblem(await request(proxy.url, bob, { method: "POST", path, body: large }), 413, "PROXY_BODY_TOO_LARGE");
    for (const acks of [[], [{ deliveryId: ID, accepted: true }]]) {
      // oxlint-disable-next-line no-await-in-loop -- two requests
      expect(await request(proxy.url, bob, post(path, { acks }))).toMatchObject({
        status: 200,
        body: { acknowledged: 0 },
      });
    }
  });

  test("of two acknowledgements of one message the first counts, and its reason is cut", async () => {
    const sent = await request(proxy.url, alice, hook());
    const deliveryId = String(sent.body["deliveryId"]);
    await expect
      .poll(
        async () =>
          ((await request(proxy.url, bob, get("/v1/inbox?waitSeconds=5"))).body["messages"] as unknown[]).length,
      )
      .toBe(1);
    const refusal = { deliveryId, accepted: false, reason: "\u{1F600}".repeat(600) };
    const answer = await request(
      proxy.url,
      bob,
      post("/v1/inbox/ack", { acks: [refusal, { deliveryId, accepted: true }] }),
    );
    expect(answer).toMatchObject({ status: 200, body: { acknowledged: 1 } });
    await expect
      .poll(async () => (await request(proxy.url, alice, get(`/v1/deliveries/${deliveryId}`))).body)
      .toMatchObject({ state: "dead_lettered", reason: "\u{1F600}".repeat(512) });
  });

  test("the operator has no inbox, and nobody without a credential", async () => {
    expectProblem(await operator(proxy.url, "GET", "/v1/inbox"), 401, "PROXY_AUTH_INVALID_SCHEME");
    const answer = await fetch(`${proxy.url}/v1/inbox`);
    expect([answer.status, (await answer.json()) as unknown]).toMatchObject([
      401,
      { code: "PROXY_AUTH_MISSING_TOKEN" },
    ]);
  });
});

describe("receipts", () => {
  const right = () => ({
    requestId: ID,
    senderAgentDid: alice.did,
    recipientAgentDid: bob.did,
    status: "delivered_to_webhook",
  });

  test.each<[string, Record<string, unknown>]>([
    ["no request id", { requestId: undefined }],
    ["a request id that is none", { requestId: "a b" }],
    ["no sender", { senderAgentDid: undefined }],
    ["a sender that is no DID", { senderAgentDid: "alice" }],
    ["a sender that is a person", { senderAgentDid: `did:cdi:registry.sallyport.example:human:${ID}` }],
    ["no recipient", { recipientAgentDid: undefined }],
    ["no status", { status: undefined }],
    ["a status of its own", { status: "handled" }],
    ["a reason that is no text", { reason: {} }],
  ])("a report with %s is refused", async (_, change) => {
    const answer = await request(proxy.url, bob, post("/v1/relay/delivery-receipts", { ...right(), ...change }));
    expectProblem(answer, 400, "PROXY_BAD_REQUEST");
  });

  test("a report on what is not there, by another, or of an agent that does not exist, is the one 404", async () => {
    const path = "/v1/relay/delivery-receipts";
    const answers = [
      await request(proxy.url, bob, post(path, right())),
      await request(proxy.url, alice, post(path, right())),
      await request(proxy.url, bob, post(path, { ...right(), senderAgentDid: UNKNOWN })),
      await request(proxy.url, bob, post(path, { ...right(), senderAgentDid: bob.did })),
      await request(proxy.url, bob, post(path, { ...right(), recipientAgentDid: UNKNOWN })),
    ];
    for (const answer of answers) expectProblem(answer, 404, "PROXY_NOT_FOUND");
  });

  test.each(["", "?requestId=x", `?recipientAgentDid=${UNKNOWN}`, "?requestId=a%20b&recipientAgentDid=x"])(
    "asked for with '%s' is refused",
    async (query) => {
      const path = `/v1/relay/delivery-receipts${query}`;
      expectProblem(await request(proxy.url, alice, get(path)), 400, "PROXY_BAD_REQUEST");
    },
  );

  test("asked for and not there is said so, to whomever", async () => {
    const path = `/v1/relay/delivery-receipts?requestId=${ID}&recipientAgentDid=${bob.did}`;
    for (const agent of [alice, bob]) {
      // oxlint-disable-next-line no-await-in-loop -- two requests
      expect(await request(proxy.url, agent, get(path))).toMatchObject({ status: 404, body: { found: false } });
    }
  });
});

test("after all that nothing has failed inside, and no secret has been printed", expectNoHarm);
