import { env } from "cloudflare:workers";
import { compactVerify, importJWK } from "jose";
import { beforeEach, describe, expect, test } from "vitest";
import { keysResponse } from "../../../src/identity/documents/documents.ts";
import type { Credentials } from "../../../src/identity/lifecycle/register.ts";
import { parseAitClaims, parseAitHeader } from "../../../src/wire/ait.ts";
import { parseKeysDocument } from "../../../src/wire/registry-documents.ts";
import {
  call,
  claimsOf,
  clock,
  codeOf,
  config,
  DAY_MS,
  headerOf,
  newKeyPair,
  NOW_MS,
  operatorCall,
  registered,
  rows,
  source,
} from "../fixture.ts";

beforeEach(() => {
  clock.ms = NOW_MS;
});

const mark = (authority: string) => env.DB.prepare("INSERT INTO authority_epochs VALUES (?1, 0)").bind(authority);

describe("a registration", () => {
  test("hands out an identity token that the published keys verify, with exactly the claims of the contract", async () => {
    const agent = await registered({ name: "Alpha 1.0", framework: "langgraph", description: "answers mail" });
    const header = parseAitHeader(headerOf(agent.credentials.ait));
    const document = parseKeysDocument(await (await keysResponse(source)).json());
    if (!header.ok || !document.ok) throw new Error("the registry's own documents do not parse");
    const key = document.value.keys.find(({ kid }) => kid === header.value.kid);
    await compactVerify(
      agent.credentials.ait,
      await importJWK({ kty: "OKP", crv: "Ed25519", x: key?.x ?? "" }, "EdDSA"),
    );
    const claims = claimsOf(agent.credentials.ait);
    expect(parseAitClaims(claims).ok).toBe(true);
    expect(claims).toEqual({
      iss: config.registryIssuer,
      sub: agent.credentials.agentDid,
      ownerDid: agent.credentials.ownerDid,
      name: "Alpha 1.0",
      framework: "langgraph",
      description: "answers mail",
      cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: agent.publicKey } },
      iat: NOW_MS / 1_000,
      nbf: NOW_MS / 1_000,
      exp: NOW_MS / 1_000 + 30 * 86_400,
      jti: expect.stringMatching(/^[0-9A-HJKMNP-TV-Z]{26}$/),
    });
  });

  test("hands out tokens that leak scanners can find, and keeps their hashes alone", async () => {
    const { credentials } = await registered();
    expect(credentials.access.token).toMatch(/^spa_[A-Za-z0-9_-]{43}$/);
    expect(credentials.refreshToken).toMatch(/^spr_[A-Za-z0-9_-]{43}$/);
    expect(credentials.access.expiresAtMs).toBe(NOW_MS + 900_000);
    const stored = JSON.stringify(await rows("SELECT * FROM token_pairs"));
    expect(stored).not.toContain(credentials.access.token.slice(4));
    expect(stored).not.toContain(credentials.refreshToken.slice(4));
  });

  test("gives every owner one tenant of its own, unless the operator names another", async () => {
    const first = await registered();
    const second = await registered({ ownerDid: first.credentials.ownerDid });
    const stranger = await registered();
    const named = await registered({ ownerDid: first.credentials.ownerDid, tenantId: "acme" });
    expect(second.credentials.tenantId).toBe(first.credentials.tenantId);
    expect(stranger.credentials.tenantId).not.toBe(first.credentials.tenantId);
    expect(named.credentials.tenantId).toBe("acme");
  });

  test("lets the identity token live as long as the operator says", async () => {
    const { credentials } = await registered({ ttlSeconds: 60 });
    expect(claimsOf(credentials.ait)["exp"]).toBe(NOW_MS / 1_000 + 60);
  });

  test("commits the statements of other rooms with it, or nothing at all", async () => {
    const seen: string[] = [];
    const failing = await newKeyPair();
    await registered({}, { atEnd: [], atRegistration: [(_, agent) => (seen.push(agent.agentDid), [mark("hook-1")])] });
    expect(await rows("SELECT * FROM authority_epochs WHERE authority = 'hook-1'")).toHaveLength(1);
    const again = call(
      operatorCall(),
      "identity.register",
      { name: "beta", framework: "test", publicKey: failing.publicKey },
      { atEnd: [], atRegistration: [(_, agent) => (seen.push(agent.agentDid), [mark("hook-1")])] },
    );
    expect(await codeOf(again)).toBe("PROXY_AUTH_DEPENDENCY_UNAVAILABLE");
    expect(seen).toHaveLength(2);
    expect(await rows("SELECT * FROM agents WHERE agent_did = ?1", seen[1])).toEqual([]);
    expect(await rows("SELECT * FROM aits WHERE agent_did = ?1", seen[1])).toEqual([]);
  });

  test("is in the audit with who, what, whom and the result, and without a secret", async () => {
    const { credentials } = await registered();
    const [row] = await rows("SELECT * FROM audit WHERE subject = ?1", `agent:${credentials.agentDid}`);
    expect(row).toMatchObject({
      actor: "operator",
      action: "identity.register",
      agent_did: credentials.agentDid,
      origin: "192.0.2.1",
      result: "ok",
      request_id: "req-test-0001",
      at_ms: NOW_MS,
    });
    expect(JSON.stringify(row)).not.toMatch(/sp[ar]_/);
  });

  test("refuses a key that was ever registered, since a proof does not name its agent", async () => {
    const first = await registered();
    expect(await codeOf(registered({ publicKey: first.publicKey }))).toBe("PROXY_CONFLICT");
  });

  test("of two registrations of one key at once only one is made", async () => {
    const { publicKey } = await newKeyPair();
    const codes = await Promise.all([codeOf(registered({ publicKey })), codeOf(registered({ publicKey }))]);
    expect(codes.toSorted()).toEqual(["PROXY_CONFLICT", "answered"]);
    expect(await rows("SELECT * FROM agents WHERE public_key = ?1", publicKey)).toHaveLength(1);
  });
});

const zeros = (length: number) => "A".repeat(length);

describe("a registration is refused with 400 and the member's name", () => {
  test.each([
    ["name", { name: "" }],
    ["name", { name: "a".repeat(65) }],
    ["name", { name: "tab\there" }],
    ["name", { name: 7 }],
    ["framework", { framework: "" }],
    ["framework", { framework: "x".repeat(33) }],
    ["framework", { framework: "line\nbreak" }],
    ["framework", { framework: undefined }],
    ["publicKey", { publicKey: "" }],
    ["publicKey", { publicKey: `${zeros(42)}=` }],
    ["publicKey", { publicKey: zeros(42) }],
    ["publicKey", { publicKey: zeros(44) }],
    ["publicKey of small order", { publicKey: zeros(43) }],
    ["publicKey of small order", { publicKey: "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU" }],
    ["publicKey of order two", { publicKey: "7P_______________________________________38" }],
    ["publicKey in another encoding than its point's", { publicKey: "8P_______________________________________38" }],
    ["publicKey that is no point of the curve", { publicKey: `Ag${zeros(41)}` }],
    ["publicKey with a tail that is not canonical", { publicKey: `${"E".repeat(42)}B` }],
    ["publicKey", { publicKey: zeros(100_000) }],
    ["ownerDid", { ownerDid: "somebody" }],
    ["ownerDid of an agent", { ownerDid: "did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A" }],
    ["ownerDid of another authority", { ownerDid: "did:cdi:elsewhere.example:human:01JDA00000000000000000000A" }],
    ["tenantId", { tenantId: "" }],
    ["tenantId", { tenantId: "a b" }],
    ["tenantId", { tenantId: "tenant:x#member" }],
    ["tenantId", { tenantId: "t".repeat(129) }],
    ["description", { description: "d".repeat(281) }],
    ["description", { description: "bell\u0007" }],
    ["description", { description: "C1 \u0085" }],
    ["description", { description: "half \ud800 of a pair" }],
    ["ttlSeconds", { ttlSeconds: 59 }],
    ["ttlSeconds", { ttlSeconds: 365 * 86_400 + 1 }],
    ["ttlSeconds", { ttlSeconds: 60.5 }],
    ["ttlSeconds", { ttlSeconds: "3600" }],
  ])("for a bad %s (%#)", async (named, wrong) => {
    const { publicKey } = await newKeyPair();
    const params = { name: "alpha", framework: "test", publicKey, ...wrong };
    const refusal = call(operatorCall(), "identity.register", params);
    await expect(refusal).rejects.toMatchObject({
      code: "PROXY_BAD_REQUEST",
      message: expect.stringMatching(new RegExp(`^${named.split(" ")[0]}\\b`)),
    });
  });

  test("but unknown members are ignored, and every letter of the world is welcome in a description", async () => {
    const agent = await registered({ color: "red", description: "ünïcödé 🚀" });
    expect(claimsOf(agent.credentials.ait)["description"]).toBe("ünïcödé 🚀");
  });
});

describe("the list of agents", () => {
  test("shows each agent once over its pages, with its state and never a token", async () => {
    const made: string[] = [];
    for (let index = 0; index < 5; index += 1) made.push((await registered()).credentials.agentDid);
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await call<{
        agents: { agentDid: string; status: string; aitExpiresAtMs: number }[];
        nextCursor?: string;
      }>(operatorCall(), "identity.list", { limit: "2", cursor });
      expect(page.agents.length).toBeLessThanOrEqual(2);
      expect(page.agents.every(({ status }) => status === "active")).toBe(true);
      expect(JSON.stringify(page)).not.toMatch(/sp[ar]_|eyJ/);
      seen.push(...page.agents.map(({ agentDid }) => agentDid));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toEqual(expect.arrayContaining(made));
  });

  test.each([
    ["limit", { limit: 0 }],
    ["limit", { limit: 101 }],
    ["limit", { limit: "ten" }],
    ["cursor", { cursor: "not canonical!" }],
    ["cursor", { cursor: "a".repeat(2_000) }],
  ])("refuses a bad %s by name (%#)", async (named, params) => {
    await expect(call(operatorCall(), "identity.list", params)).rejects.toMatchObject({
      code: "PROXY_BAD_REQUEST",
      message: expect.stringContaining(named),
    });
  });
});

test("nothing of the embedded registry is there while another registry is configured", async () => {
  const elsewhere = operatorCall({ config: { ...config, registryUrl: "https://registry.example.com" } });
  const { publicKey } = await newKeyPair();
  const params = { name: "alpha", framework: "test", publicKey };
  expect(await codeOf(call<Credentials>(elsewhere, "identity.register", params))).toBe("PROXY_NOT_FOUND");
  expect(await codeOf(call(elsewhere, "identity.list"))).toBe("PROXY_NOT_FOUND");
});

test("an identity token's end is the end of the list's answer for it", async () => {
  const agent = await registered({ ttlSeconds: 3_600 });
  const page = await call<{ agents: { agentDid: string; aitExpiresAtMs: number | null }[] }>(
    operatorCall(),
    "identity.list",
  );
  const found = page.agents.find(({ agentDid }) => agentDid === agent.credentials.agentDid);
  expect(found?.aitExpiresAtMs).toBe(NOW_MS + 3_600_000);
  expect(found?.aitExpiresAtMs).toBeLessThan(NOW_MS + DAY_MS);
});
