import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { encodeBase64Url } from "../../../src/wire/base64url.ts";
import { sha256Base64Url, signProof } from "../../../src/wire/proof.ts";
import { crashGate, eventually, listen, stopClock } from "../../support/gate.ts";
import type { AgentDid } from "../../../src/wire/did.ts";

type Agent = { did: AgentDid; ait: string; access: string; key: CryptoKey };
type Answer = { status: number; body: Record<string, unknown> };

const ORIGIN = "https://sallyport.test";
const OPERATOR = { Authorization: `Bearer ${env.OPERATOR_TOKEN ?? ""}`, "Content-Type": "application/json" };

async function register(name: string): Promise<Agent> {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const publicKey = encodeBase64Url(
    new Uint8Array((await crypto.subtle.exportKey("raw", pair.publicKey)) as ArrayBuffer),
  );
  const body = JSON.stringify({ name, framework: "test", publicKey });
  const answer = await exports.default.fetch(`${ORIGIN}/v1/agents`, { method: "POST", headers: OPERATOR, body });
  const made = await answer.json<{ agentDid: AgentDid; ait: string; access: { token: string } }>();
  return { did: made.agentDid, ait: made.ait, access: made.access.token, key: pair.privateKey };
}

async function post(from: Agent, to: Agent, payload: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const body = JSON.stringify(payload);
  const signed = {
    method: "POST",
    pathWithQuery: "/hooks/agent",
    timestamp: String(Math.floor(Date.now() / 1_000)),
    nonce: crypto.randomUUID(),
    bodySha256: await sha256Base64Url(new TextEncoder().encode(body)),
  };
  const answer = await exports.default.fetch(ORIGIN + signed.pathWithQuery, {
    method: "POST",
    body,
    headers: {
      Authorization: `Claw ${from.ait}`,
      "Content-Type": "application/json",
      "X-Claw-Agent-Access": from.access,
      "X-Claw-Recipient-Agent-Did": to.did,
      "X-Claw-Timestamp": signed.timestamp,
      "X-Claw-Nonce": signed.nonce,
      "X-Claw-Body-SHA256": signed.bodySha256,
      "X-Claw-Proof": await signProof(from.key, signed),
      ...headers,
    },
  });
  return { status: answer.status, body: await answer.json<Record<string, unknown>>() };
}

const rowsOf = (agent: Agent, query: string): Promise<unknown[]> =>
  runInDurableObject(env.GATE.getByName(agent.did), (_gate, { storage }) => storage.sql.exec(query).toArray());

let alice: Agent;
let bob: Agent;

beforeAll(async () => {
  [alice, bob] = [await register("alice"), await register("bob")];
  const [low, high] = [alice.did, bob.did].toSorted();
  await env.DB.prepare(
    "INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms) VALUES (?1, ?2, 1, '{}', '{}', ?3)",
  )
    .bind(low, high, Date.now())
    .run();
});

describe("a send that waits for its delivery", () => {
  test("is answered when the recipient acknowledges", async () => {
    const relay = await listen(bob.did);
    expect(await post(alice, bob, { n: 1 }, { Prefer: "wait=15" })).toMatchObject({
      status: 202,
      body: { accepted: true, state: "delivered", delivered: true, queued: false, queueDepth: 0 },
    });
    relay.socket.close(1000);
  });

  test("waits for nobody's company, nor does the next: both take no time of the clock", async () => {
    const relay = await listen(bob.did);
    stopClock(Date.now());
    onTestFinished(() => void vi.useRealTimers());
    for (let n = 0; n < 5; n++) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await post(alice, bob, { n }, { Prefer: "wait=15" })).toMatchObject({ body: { delivered: true } });
    }
    expect(relay.frames.filter((frame) => "isAwaited" in frame)).toEqual([]);
    relay.socket.close(1000);
  });

  test("is answered as queued when nobody does in time", async () => {
    expect(await post(alice, bob, { n: 2 }, { Prefer: "wait=1" })).toMatchObject({
      status: 202,
      body: { accepted: true, state: "queued", delivered: false, queued: true },
    });
  });

  test("is answered as queued when its gate dies meanwhile, and the message is there", async () => {
    const answer = post(alice, bob, { n: 3 }, { Prefer: "wait=15" });
    await eventually(async () =>
      expect(await rowsOf(bob, "SELECT body FROM inbound WHERE state = 0")).toContainEqual({ body: '{"n":3}' }),
    );
    await crashGate(alice.did);
    expect(await answer).toMatchObject({ status: 202, body: { accepted: true, state: "queued", delivered: false } });
  });
});

/** Trust between two agents, as a pairing makes it. */
async function trust(a: Agent, b: Agent): Promise<void> {
  const [low, high] = [a.did, b.did].toSorted();
  await env.DB.prepare(
    "INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms) VALUES (?1, ?2, 1, '{}', '{}', ?3)",
  )
    .bind(low, high, Date.now())
    .run();
}

test("hook: a sender that is revoked while it waits is answered with 401, and its message stands", async () => {
  const carol = await register("carol");
  await trust(carol, bob);
  const answer = post(carol, bob, { of: "carol" }, { Prefer: "wait=15" });
  await eventually(async () =>
    expect(await rowsOf(bob, "SELECT body FROM inbound WHERE state = 0")).toContainEqual({ body: '{"of":"carol"}' }),
  );
  const body = JSON.stringify({ agentDid: carol.did });
  const revoked = await exports.default.fetch(`${ORIGIN}/v1/agents/revoke`, {
    method: "POST",
    headers: OPERATOR,
    body,
  });
  expect(revoked.status).toBe(200);
  const relay = await listen(bob.did);
  expect(await answer).toMatchObject({ status: 401, body: { code: "PROXY_AUTH_REVOKED" } });
  relay.socket.close(1000);
});

describe("hook: text in headers", () => {
  const conversation = async (header: string): Promise<unknown> => {
    const marker = crypto.randomUUID();
    const answer = await post(alice, bob, { marker }, { "X-Claw-Conversation-Id": header });
    if (answer.status !== 202) return [answer.status, answer.body["code"]];
    const sent = JSON.stringify({ marker });
    const find = `SELECT envelope FROM outbound WHERE body = '${sent}' UNION ALL SELECT envelope FROM inbound WHERE body = '${sent}'`;
    const kept = [...(await rowsOf(alice, find)), ...(await rowsOf(bob, find))] as { envelope: string }[];
    return (JSON.parse(kept[0]?.envelope ?? "{}") as { conversationId?: string }).conversationId;
  };

  test.each([
    ["thread 1", "thread 1"],
    ["UTF-8''caf%C3%A9", "café"],
    ["utf-8'ja'%E6%9D%B1%E4%BA%AC", "東京"],
  ])("a conversation id of %s arrives as %s", async (header, id) => {
    expect(await conversation(header)).toBe(id);
  });

  test.each(["café", "UTF-8''caf%E9", "UTF-8''a%E2%80%AEb", "UTF-8''%20", `UTF-8''${"%C3%A9".repeat(257)}`])(
    "a conversation id of %s is refused and never replaced",
    async (header) => {
      expect(await conversation(header)).toEqual([400, "PROXY_BAD_REQUEST"]);
    },
  );

  test.each([
    ["application/json", 202],
    ["application/json; charset=utf-8", 202],
    ['application/json; charset="UTF-8"', 202],
    ["application/ld+json;charset=utf8", 202],
    ["application/json; charset=utf-16", 415],
    ["application/json;CHARSET=ISO-8859-1", 415],
    ["application/json; charset=utf-8; charset=utf-16", 415],
    ["text/plain", 415],
  ])("a Content-Type of %s is a %i", async (contentType, status) => {
    expect(await post(alice, bob, { contentType }, { "Content-Type": contentType })).toMatchObject({ status });
  });

  test("JSON in another charset is refused by the routes before methods too", async () => {
    const headers = { ...OPERATOR, "Content-Type": "application/json; charset=utf-16" };
    for (const path of ["/rpc", "/v1/agents"]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const answer = await exports.default.fetch(ORIGIN + path, { method: "POST", headers, body: "{}" });
      expect(answer.status, path).toBe(415);
    }
  });
});

describe("a send that does not wait", () => {
  test("is answered whether the recipient's gate answers or not", async () => {
    const nobody = await register("nobody");
    const [low, high] = [alice.did, nobody.did].toSorted();
    await env.DB.prepare(
      "INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms) VALUES (?1, ?2, 1, '{}', '{}', ?3)",
    )
      .bind(low, high, Date.now())
      .run();
    const answer = await post(alice, nobody, { n: 1 });
    expect(answer).toMatchObject({
      status: 202,
      body: { accepted: true, state: "queued", delivered: false, queued: true, queueDepth: 1 },
    });
  });
});
