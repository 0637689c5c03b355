/** Invites and enrolment (contract §2, §3) over the whole Worker, with real D1. */
import { env, exports } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import { encodeBase64Url } from "../../../src/wire/base64url.ts";
import { sha256Base64Url, signProof } from "../../../src/wire/proof.ts";
import { contentDigest, keyThumbprint, signProofV2 } from "../../../src/wire/proof-v2.ts";

const ORIGIN = "https://sallyport.test";
const OPERATOR = { Authorization: `Bearer ${env.OPERATOR_TOKEN ?? ""}`, "Content-Type": "application/json" };

type Answer = { status: number; body: Record<string, unknown> };
type Key = { privateKey: CryptoKey; publicKey: string };

async function answerOf(response: Response): Promise<Answer> {
  return { status: response.status, body: await response.json<Record<string, unknown>>() };
}

async function operator(method: string, path: string, body?: unknown): Promise<Answer> {
  const init = { method, headers: OPERATOR, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
  return answerOf(await exports.default.fetch(ORIGIN + path, init));
}

async function newKey(): Promise<Key> {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const raw = new Uint8Array((await crypto.subtle.exportKey("raw", pair.publicKey)) as ArrayBuffer);
  return { privateKey: pair.privateKey, publicKey: encodeBase64Url(raw) };
}

type Enrolling = { key?: Key; signedBy?: Key; version?: 1 | 2; body?: Record<string, unknown>; address?: string };

async function enroll(invite: string, how: Enrolling = {}): Promise<Answer> {
  const key = how.key ?? (await newKey());
  const body = JSON.stringify({ name: "newcomer", framework: "test", publicKey: key.publicKey, ...how.body });
  const bodySha256 = await sha256Base64Url(new TextEncoder().encode(body));
  const headers = new Headers({ Authorization: `Invite ${invite}`, "Content-Type": "application/json" });
  headers.set("CF-Connecting-IP", how.address ?? "192.0.2.77");
  const nonce = crypto.randomUUID();
  const nowSeconds = Math.floor(Date.now() / 1_000);
  const signer = (how.signedBy ?? key).privateKey;
  if (how.version === 2) {
    headers.set("Content-Digest", contentDigest(bodySha256));
    const message = { method: "POST", pathWithQuery: "/v1/agents/enroll", authority: "sallyport.test", headers };
    const keyid = await keyThumbprint(key.publicKey);
    const fields = await signProofV2(signer, message, { created: nowSeconds, expires: nowSeconds + 60, nonce, keyid });
    for (const [name, value] of Object.entries(fields)) headers.set(name, value);
  } else {
    const timestamp = String(nowSeconds);
    const parts = { method: "POST", pathWithQuery: "/v1/agents/enroll", timestamp, nonce, bodySha256 };
    headers.set("X-Claw-Timestamp", timestamp);
    headers.set("X-Claw-Nonce", nonce);
    headers.set("X-Claw-Body-SHA256", bodySha256);
    headers.set("X-Claw-Proof", await signProof(signer, parts));
  }
  return answerOf(await exports.default.fetch(`${ORIGIN}/v1/agents/enroll`, { method: "POST", headers, body }));
}

async function invited(
  wanted: Record<string, unknown> = {},
): Promise<{ invite: string; inviteId: string; ownerDid: string; tenantId: string; link: string }> {
  const { status, body } = await operator("POST", "/v1/invites", wanted);
  if (status !== 201) throw new Error(`no invite: ${status} ${JSON.stringify(body)}`);
  return body as never;
}

const told = ({ status, body }: Answer): string => `${status} ${(body["code"] as string | undefined) ?? ""}`.trim();
const REFUSED = "401 PROXY_AUTH_INVALID_TOKEN";

/** Each test guesses from an address of its own. */
let address = 0;
beforeEach(() => {
  address += 1;
});
const from = (): string => `198.51.100.${address}`;

describe("an invite", () => {
  test("invite: its holder registers an agent with its owner and tenant, by either version of the proof", async () => {
    const made = await invited({ uses: 2, note: "for Bob" });
    expect(made.invite).toMatch(/^spi_[\w-]{43}$/);
    expect(made.link).toBe(`${ORIGIN}/join#${made.invite}`);
    for (const version of [1, 2] as const) {
      const { status, body } = await enroll(made.invite, { version });
      expect(status).toBe(201);
      expect(body).toMatchObject({
        ownerDid: made.ownerDid,
        tenantId: made.tenantId,
        access: { token: expect.stringMatching(/^spa_/) as string },
      });
    }
  });

  test("invite: of 20 enrolments at once with one use left, one gets in and its use is counted once", async () => {
    const made = await invited({ uses: 1 });
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, at) => enroll(made.invite, { address: `203.0.113.${at}` })),
    );
    expect(answers.map(told).toSorted()).toEqual(["201", ...Array.from({ length: 19 }, () => REFUSED)]);
    const { body } = await operator("GET", "/v1/invites");
    const listed = (body["invites"] as { inviteId: string }[]).find(({ inviteId }) => inviteId === made.inviteId);
    expect(listed).toMatchObject({ uses: 1, usesLeft: 0, agents: [expect.stringMatching(/^did:cdi:/)] });
    expect(JSON.stringify(body)).not.toContain(made.invite);
  });

  test("invite: revoked, it is over when that is answered; revoked again, the answer is the same", async () => {
    const made = await invited({ uses: 5 });
    expect((await enroll(made.invite, { address: from() })).status).toBe(201);
    const { body } = await operator("POST", "/v1/invites/revoke", { inviteId: made.inviteId });
    expect(told(await enroll(made.invite, { address: from() }))).toBe(REFUSED);
    expect((await operator("POST", "/v1/invites/revoke", { inviteId: made.inviteId })).body).toEqual(body);
    expect(told(await operator("POST", "/v1/invites/revoke", { inviteId: "01K00000000000000000000000" }))).toBe(
      "404 PROXY_NOT_FOUND",
    );
  });

  test("invite: unknown, used up, expired and revoked ones get the same answer to the byte", async () => {
    const [usedUp, expired, revoked] = [await invited(), await invited({ ttlSeconds: 60 }), await invited()];
    await enroll(usedUp.invite, { address: "203.0.113.200" });
    await operator("POST", "/v1/invites/revoke", { inviteId: revoked.inviteId });
    await env.DB.prepare("UPDATE invites SET expires_at_ms = 1 WHERE invite_id = ?").bind(expired.inviteId).run();
    const answers = await Promise.all(
      [`spi_${"A".repeat(43)}`, usedUp.invite, expired.invite, revoked.invite].map((invite) =>
        enroll(invite, { address: from() }),
      ),
    );
    const bodies = answers.map(({ status, body: { requestId: _id, ...body } }) => JSON.stringify({ status, body }));
    expect(new Set(bodies).size).toBe(1);
    expect(told(answers[0]!)).toBe(REFUSED);
  });

  test("invite: guesses lock their address, and a right invite from elsewhere still works", async () => {
    const guess = () =>
      enroll(`spi_${encodeBase64Url(crypto.getRandomValues(new Uint8Array(32)))}`, { address: from() });
    const codes: string[] = [];
    for (let turn = 0; turn < 12; turn += 1) codes.push(told(await guess()));
    expect(codes.slice(0, 10)).toEqual(Array.from({ length: 10 }, () => REFUSED));
    expect(codes[11]).toBe("429 PROXY_RATE_LIMIT_EXCEEDED");
    expect((await enroll((await invited()).invite, { address: "203.0.113.201" })).status).toBe(201);
  });

  test("invite: a use is not taken by an enrolment that is refused", async () => {
    const made = await invited();
    const key = await newKey();
    expect(told(await enroll(made.invite, { key, signedBy: await newKey(), address: from() }))).toBe(
      "401 PROXY_AUTH_INVALID_PROOF",
    );
    expect(told(await enroll(made.invite, { key, body: { name: "no/slash" }, address: from() }))).toBe(
      "400 PROXY_BAD_REQUEST",
    );
    expect(told(await enroll(made.invite, { key, body: { publicKey: "short" }, address: from() }))).toBe(
      "400 PROXY_BAD_REQUEST",
    );
    expect((await enroll(made.invite, { key, address: from() })).status).toBe(201);
  });

  test("invite: a key that is registered already is a conflict, and takes no use", async () => {
    const made = await invited({ uses: 2 });
    const key = await newKey();
    expect((await enroll(made.invite, { key, address: from() })).status).toBe(201);
    expect(told(await enroll(made.invite, { key, address: from() }))).toBe("409 PROXY_CONFLICT");
    expect((await enroll(made.invite, { address: from() })).status).toBe(201);
  });

  test("invite: making and using one is in the audit, by its id and never by its secret", async () => {
    const made = await invited();
    await enroll(made.invite, { address: from() });
    const { results } = await env.DB.prepare("SELECT actor, action, details FROM audit").all<Record<string, string>>();
    const actions = results.map(({ actor, action }) => `${actor} ${action}`);
    expect(actions).toContain("operator invite.create");
    expect(actions).toContain(`invite:${made.inviteId} identity.register`);
    expect(JSON.stringify(results)).not.toContain(made.invite);
  });
});

describe("bad input", () => {
  test.each([
    ["uses of 0", { uses: 0 }],
    ["uses of 101", { uses: 101 }],
    ["a life of 59 s", { ttlSeconds: 59 }],
    ["a life of more than 90 days", { ttlSeconds: 7_776_001 }],
    ["an owner of another registry", { ownerDid: "did:cdi:other.example:human:01K00000000000000000000000" }],
    ["an owner that is an agent", { ownerDid: "did:cdi:registry.sallyport.example:agent:01K00000000000000000000000" }],
    ["a tenant with a slash", { tenantId: "a/b" }],
    ["a note with a bidi control", { note: "a\u202Eb" }],
  ])("invite: %s is refused", async (_what, wanted) => {
    expect(told(await operator("POST", "/v1/invites", wanted))).toBe("400 PROXY_BAD_REQUEST");
  });

  test.each([
    ["nothing", undefined, "401 PROXY_AUTH_MISSING_TOKEN"],
    ["another scheme", "Bearer x", "401 PROXY_AUTH_INVALID_SCHEME"],
    ["a scheme alone", "Invite", "401 PROXY_AUTH_INVALID_SCHEME"],
    ["an invite that is too short", "Invite spi_x", REFUSED],
    ["a token of another kind", `Invite spk_${"A".repeat(43)}`, REFUSED],
  ])("enrolment: %s in the place of an invite is refused", async (_what, authorization, expected) => {
    const headers = {
      "CF-Connecting-IP": from(),
      ...(authorization === undefined ? {} : { Authorization: authorization }),
    };
    const response = await exports.default.fetch(`${ORIGIN}/v1/agents/enroll`, { method: "POST", headers, body: "{}" });
    expect(told(await answerOf(response))).toBe(expected);
  });

  test("invites are listed page by page, also where there are more than a statement may name", async () => {
    const row = env.DB.prepare(
      "INSERT INTO invites SELECT 'ZZ' || printf('%024d', ?1), 'sha' || ?1, owner_did, tenant_id, uses, used, note, created_by, created_at_ms, expires_at_ms, revoked_at_ms FROM invites LIMIT 1",
    );
    const { inviteId } = await invited();
    await env.DB.batch(Array.from({ length: 120 }, (_, index) => row.bind(index)));
    const first = await operator("GET", "/v1/invites");
    expect(first).toMatchObject({ status: 200, body: { nextCursor: expect.any(String) as string } });
    expect(first.body["invites"]).toHaveLength(100);
    const second = await operator("GET", `/v1/invites?cursor=${String(first.body["nextCursor"])}`);
    const ids = [first, second].flatMap(({ body }) =>
      (body["invites"] as { inviteId: string }[]).map((invite) => invite.inviteId),
    );
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.filter((id) => id.startsWith("ZZ"))).toHaveLength(120);
    expect(ids).toContain(inviteId);
    await env.DB.prepare("DELETE FROM invites WHERE invite_id LIKE 'ZZ%'").run();
  });

  test("invites: only the operator makes, lists and revokes them", async () => {
    for (const [method, path] of [
      ["POST", "/v1/invites"],
      ["GET", "/v1/invites"],
      ["POST", "/v1/invites/revoke"],
    ] as const) {
      const response = await exports.default.fetch(ORIGIN + path, {
        method,
        ...(method === "POST" ? { body: "{}" } : {}),
      });
      expect(told(await answerOf(response))).toBe("401 PROXY_AUTH_MISSING_TOKEN");
    }
  });
});

describe("/join", () => {
  test("join: the page says what to run, holds no script, and its style is the one its policy names", async () => {
    const response = await exports.default.fetch(`${ORIGIN}/join`);
    const page = await response.text();
    expect(page).toContain("npx sallyport join");
    expect(page).not.toMatch(/<script|\son\w+=|https?:\/\//i);
    expect(response.headers.get("Referrer-Policy")).toBe("no-referrer");
    const style = /<style>([\s\S]*?)<\/style>/.exec(page)?.[1] ?? "";
    const hash = btoa(
      String.fromCharCode(...new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(style)))),
    );
    expect(response.headers.get("Content-Security-Policy")).toContain(`style-src 'sha256-${hash}'`);
  });
});
