import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import type { Revoked } from "../../../src/identity/lifecycle/revoke.ts";
import type { Credentials } from "../../../src/identity/lifecycle/register.ts";
import { LIVE_AITS_MAX } from "../../../src/identity/registry.ts";
import { signedRevocationList } from "../../../src/identity/documents/revocation-list.ts";
import { isAccessValid } from "../../../src/identity/tokens/token-pairs.ts";
import { parseCrlBody, parseCrlClaims } from "../../../src/wire/registry-documents.ts";
import {
  agentCall,
  call,
  claimsOf,
  clock,
  codeOf,
  DAY_MS,
  endedBy,
  gateStub,
  heldDatabase,
  keptJtis,
  newKeyPair,
  NOW_MS,
  operatorCall,
  operatorCallAbout,
  registered,
  registry,
  rows,
  SECOND_MS,
  type TestAgent,
} from "../fixture.ts";

beforeEach(() => {
  clock.ms = NOW_MS;
});

const UNKNOWN = "did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A";
const jtiOf = (ait: string): string => claimsOf(ait)["jti"] as string;
const revoke = (agent: TestAgent, params = {}): Promise<Revoked> =>
  call<Revoked>(operatorCallAbout(agent.credentials.agentDid), "identity.revoke", {
    agentDid: agent.credentials.agentDid,
    ...params,
  });
const rekey = (agent: TestAgent, publicKey: string): Promise<Credentials> =>
  call<Credentials>(operatorCallAbout(agent.credentials.agentDid), "identity.rekey", {
    agentDid: agent.credentials.agentDid,
    publicKey,
  });
const reissue = (agent: TestAgent): Promise<{ ait: string }> =>
  call<{ ait: string }>(agentCall(agent), "identity.reissue");

async function listed(): Promise<Map<string, { reason?: string | undefined; revokedAt: number }>> {
  const body = parseCrlBody(JSON.parse(new TextDecoder().decode(await signedRevocationList(registry()))));
  const claims = body.ok ? parseCrlClaims(claimsOf(body.value)) : body;
  if (!claims.ok) throw new Error(claims.error);
  return new Map(claims.value.revocations.map(({ jti, reason, revokedAt }) => [jti, { reason, revokedAt }]));
}

describe("a reissue", () => {
  test("is another identity token with the same claims, and the one before stays valid", async () => {
    const agent = await registered({ ttlSeconds: 3_600, description: "same" });
    clock.ms += 5 * SECOND_MS;
    const { ait } = await reissue(agent);
    const [first, second] = [claimsOf(agent.credentials.ait), claimsOf(ait)];
    const nowSeconds = clock.ms / 1_000;
    expect(second).toEqual({
      ...first,
      iat: nowSeconds,
      nbf: nowSeconds,
      exp: nowSeconds + 3_600,
      jti: expect.stringMatching(/^[0-9A-HJKMNP-TV-Z]{26}$/),
    });
    expect(second["jti"]).not.toBe(first["jti"]);
    expect((await listed()).has(jtiOf(agent.credentials.ait))).toBe(false);
  });

  test("under way while its agent is revoked is undone by the fence, even if its gate is deaf", async () => {
    const agent = await registered();
    const held = heldDatabase();
    const late = codeOf(call(agentCall(agent, { db: held.db, isGateDeaf: true }), "identity.reissue"));
    await held.arrived;
    await revoke(agent);
    held.release();
    expect(await late).toBe("PROXY_AUTH_REVOKED");
    expect(await rows("SELECT jti FROM aits WHERE agent_did = ?1", agent.credentials.agentDid)).toHaveLength(1);
  });

  test("under way while its agent is re-keyed to the very same key is undone too", async () => {
    const agent = await registered();
    const held = heldDatabase();
    const late = codeOf(call(agentCall(agent, { db: held.db, isGateDeaf: true }), "identity.reissue"));
    await held.arrived;
    await rekey(agent, agent.publicKey);
    held.release();
    expect(await late).toBe("PROXY_AUTH_REVOKED");
    const live = "SELECT jti FROM aits WHERE agent_did = ?1 AND revoked_at_ms IS NULL";
    expect(await rows(live, agent.credentials.agentDid)).toHaveLength(1);
  });

  test("committed while its agent is being ended is in the revocation list, and is not handed out", async () => {
    const agent = await registered();
    const ctx = agentCall(agent);
    // The gate has raised its epoch, D1 has not: exactly here a reissue may still commit.
    let late = "";
    const gate = gateStub(agent.credentials.agentDid, async () => {
      late = await codeOf(
        call({ ...ctx, authority: { ...ctx.authority, assertCurrent: onceCurrent(ctx) } }, "identity.reissue"),
      );
    });
    await call(operatorCallAbout(agent.credentials.agentDid, { gate }), "identity.revoke", {
      agentDid: agent.credentials.agentDid,
    });
    expect(late).toBe("PROXY_AUTH_REVOKED");
    const jtis = await rows<{ jti: string }>("SELECT jti FROM aits WHERE agent_did = ?1", agent.credentials.agentDid);
    expect(jtis).toHaveLength(2);
    const list = await listed();
    expect(jtis.every(({ jti }) => list.has(jti))).toBe(true);
  });

  test("is refused with 429 while too many identity tokens are unexpired", async () => {
    const agent = await registered();
    await env.DB.prepare(
      `INSERT INTO aits (jti, agent_did, kid, issued_at_ms, expires_at_ms)
       SELECT printf('J%025d', value), ?1, 'k', 0, ?2 FROM json_each(?3)`,
    )
      .bind(agent.credentials.agentDid, NOW_MS + DAY_MS, JSON.stringify([...Array(LIVE_AITS_MAX).keys()]))
      .run();
    expect(await codeOf(reissue(agent))).toBe("PROXY_RATE_LIMIT_EXCEEDED");
    clock.ms += 2 * DAY_MS;
    expect(await codeOf(reissue(agent))).toBe("answered");
  });

  test("is the agent's own to ask for", async () => {
    expect(await codeOf(call(operatorCall(), "identity.reissue"))).toBe("PROXY_AUTH_FORBIDDEN");
  });
});

/** Passes once, as a call does that asked a moment before the end. */
function onceCurrent(ctx: { authority: { assertCurrent(): void } }): () => void {
  let isFirst = true;
  return () => {
    if (!isFirst) ctx.authority.assertCurrent();
    isFirst = false;
  };
}

describe("a revocation", () => {
  test("ends every identity token, access and refresh token of the agent, and no other agent's", async () => {
    const [agent, other] = [await registered(), await registered()];
    const { ait } = await reissue(agent);
    const answer = await revoke(agent, { reason: "laptop stolen" });
    expect(answer).toMatchObject({ agentDid: agent.credentials.agentDid, revoked: true, revokedAtMs: NOW_MS });
    const list = await listed();
    expect(list.get(jtiOf(agent.credentials.ait))).toEqual({ reason: "laptop stolen", revokedAt: NOW_MS });
    expect(list.get(jtiOf(ait))).toEqual({ reason: "laptop stolen", revokedAt: NOW_MS });
    expect(list.has(jtiOf(other.credentials.ait))).toBe(false);
    const valid = (who: TestAgent): Promise<boolean> =>
      isAccessValid(registry(), {
        token: who.credentials.access.token,
        agentDid: who.credentials.agentDid,
        aitJti: jtiOf(who.credentials.ait),
      });
    expect([await valid(agent), await valid(other)]).toEqual([false, true]);
    const refresh = call(agentCall(agent), "identity.refresh", { refreshToken: agent.credentials.refreshToken });
    expect(await codeOf(refresh)).toBe("PROXY_AUTH_INVALID_TOKEN");
    expect(await codeOf(reissue(agent))).toBe("PROXY_AUTH_REVOKED");
  });

  test("tells the gate every unexpired token that ended, and raises the fence in the same commit", async () => {
    const agent = await registered({ ttlSeconds: 60 });
    clock.ms += 60 * SECOND_MS;
    const { ait } = await reissue(agent);
    await revoke(agent);
    expect(endedBy.at(-1)).toEqual([{ jti: jtiOf(ait), expMs: clock.ms + 60 * SECOND_MS }]);
    expect(
      await rows("SELECT epoch FROM authority_epochs WHERE authority = ?1", `agent:${agent.credentials.agentDid}`),
    ).toEqual([{ epoch: 1 }]);
  });

  test("may be repeated, keeps its first moment, and tells the gate the same tokens again", async () => {
    const agent = await registered();
    const first = await revoke(agent);
    clock.ms += 5 * SECOND_MS;
    const second = await revoke(agent, { reason: "once more" });
    expect(second.revokedAtMs).toBe(first.revokedAtMs);
    expect(endedBy.at(-1)).toEqual(endedBy.at(-2));
    const audit = await rows(
      "SELECT result FROM audit WHERE action = 'identity.revoke' AND subject = ?1 ORDER BY at_ms",
      `agent:${agent.credentials.agentDid}`,
    );
    expect(audit).toEqual([{ result: "ok" }, { result: "repeated" }]);
  });

  test("commits the ends of other rooms with its own, or nothing at all", async () => {
    const agent = await registered();
    const broken = call(
      operatorCallAbout(agent.credentials.agentDid),
      "identity.revoke",
      { agentDid: agent.credentials.agentDid },
      { atRegistration: [], atEnd: [() => [env.DB.prepare("INSERT INTO fence VALUES (2)")]] },
    );
    expect(await codeOf(broken)).toBe("PROXY_AUTH_DEPENDENCY_UNAVAILABLE");
    expect((await listed()).has(jtiOf(agent.credentials.ait))).toBe(false);
    const seen: unknown[] = [];
    await call(
      operatorCallAbout(agent.credentials.agentDid),
      "identity.revoke",
      { agentDid: agent.credentials.agentDid },
      { atRegistration: [], atEnd: [(_, agentDid, cause) => (seen.push([agentDid, cause]), [])] },
    );
    expect(seen).toEqual([[agent.credentials.agentDid, "revoked"]]);
    expect((await listed()).has(jtiOf(agent.credentials.ait))).toBe(true);
  });

  test("is never undone: the database itself refuses", async () => {
    const agent = await registered();
    await revoke(agent);
    const undo = env.DB.prepare("UPDATE agents SET revoked_at_ms = NULL WHERE agent_did = ?1").bind(
      agent.credentials.agentDid,
    );
    await expect(undo.run()).rejects.toThrow(/stays revoked/);
  });

  test.each([
    ["PROXY_NOT_FOUND", UNKNOWN, {}],
    ["PROXY_BAD_REQUEST", "did:cdi:nobody", {}],
    ["PROXY_BAD_REQUEST", UNKNOWN, { reason: "" }],
    ["PROXY_BAD_REQUEST", UNKNOWN, { reason: "r".repeat(201) }],
    ["PROXY_BAD_REQUEST", UNKNOWN, { reason: "line\nbreak" }],
    ["PROXY_BAD_REQUEST", UNKNOWN, { reason: 5 }],
  ])("is refused with %s for what names no agent or no reason (%#)", async (code, agentDid, rest) => {
    expect(await codeOf(call(operatorCallAbout(UNKNOWN), "identity.revoke", { agentDid, ...rest }))).toBe(code);
  });
});

describe("a re-key", () => {
  test("keeps the DID, the owner and the tenant, and ends everything issued before", async () => {
    const agent = await registered();
    const keys = await newKeyPair();
    const next = await rekey(agent, keys.publicKey);
    expect(next).toMatchObject({
      agentDid: agent.credentials.agentDid,
      ownerDid: agent.credentials.ownerDid,
      tenantId: agent.credentials.tenantId,
    });
    expect((claimsOf(next.ait)["cnf"] as { jwk: { x: string } }).jwk.x).toBe(keys.publicKey);
    expect(keptJtis.at(-1)).toBe(jtiOf(next.ait));
    expect(endedBy.at(-1)?.map(({ jti }) => jti)).toEqual([jtiOf(agent.credentials.ait)]);
    const list = await listed();
    expect([list.has(jtiOf(agent.credentials.ait)), list.has(jtiOf(next.ait))]).toEqual([true, false]);
    const valid = (credentials: Credentials): Promise<boolean> =>
      isAccessValid(registry(), {
        token: credentials.access.token,
        agentDid: credentials.agentDid,
        aitJti: jtiOf(next.ait),
      });
    expect([await valid(agent.credentials), await valid(next)]).toEqual([false, true]);
    const rekeyed: TestAgent = { ...keys, credentials: next };
    expect(await codeOf(reissue(rekeyed))).toBe("answered");
  });

  test("to the agent's own key is what an expired identity token needs", async () => {
    const agent = await registered({ ttlSeconds: 60 });
    clock.ms += DAY_MS;
    const next = await rekey(agent, agent.publicKey);
    expect((claimsOf(next.ait)["cnf"] as { jwk: { x: string } }).jwk.x).toBe(agent.publicKey);
    expect(await codeOf(rekey(agent, agent.publicKey))).toBe("answered");
  });

  test("never takes a key that was ended, nor another agent's", async () => {
    const [agent, other] = [await registered(), await registered()];
    const { publicKey } = await newKeyPair();
    await rekey(agent, publicKey);
    expect(await codeOf(rekey(agent, agent.publicKey))).toBe("PROXY_CONFLICT");
    expect(await codeOf(rekey(agent, other.publicKey))).toBe("PROXY_CONFLICT");
  });

  test("of a revoked agent is refused, and so is one that a revocation overtakes", async () => {
    const [agent, overtaken] = [await registered(), await registered()];
    await revoke(agent);
    const { publicKey } = await newKeyPair();
    expect(await codeOf(rekey(agent, publicKey))).toBe("PROXY_CONFLICT");
    const { agentDid } = overtaken.credentials;
    const gate = gateStub(agentDid, async () => void (await revoke(overtaken)));
    const late = call(operatorCallAbout(agentDid, { gate }), "identity.rekey", { agentDid, publicKey });
    expect(await codeOf(late)).toBe("PROXY_CONFLICT");
    expect(await rows("SELECT jti FROM aits WHERE agent_did = ?1 AND revoked_at_ms IS NULL", agentDid)).toEqual([]);
    expect(await codeOf(registered({ publicKey }))).toBe("answered");
  });

  test.each([["to different keys"], ["to the key it has"]])("of two at once %s one is made", async (how) => {
    const agent = await registered();
    const { agentDid } = agent.credentials;
    const key = async (): Promise<string> =>
      how === "to the key it has" ? agent.publicKey : (await newKeyPair()).publicKey;
    const inner = await key();
    const gate = gateStub(agentDid, async () => void (await rekey(agent, inner)));
    const late = call(operatorCallAbout(agentDid, { gate }), "identity.rekey", { agentDid, publicKey: await key() });
    expect(await codeOf(late)).toBe("PROXY_CONFLICT");
    expect(await rows("SELECT public_key FROM agents WHERE agent_did = ?1", agentDid)).toEqual([{ public_key: inner }]);
    expect(await rows("SELECT jti FROM aits WHERE agent_did = ?1 AND revoked_at_ms IS NULL", agentDid)).toHaveLength(1);
  });

  test.each([
    ["PROXY_NOT_FOUND", UNKNOWN, null],
    ["PROXY_BAD_REQUEST", UNKNOWN, "A".repeat(43)],
    ["PROXY_BAD_REQUEST", UNKNOWN, undefined],
    ["PROXY_BAD_REQUEST", 7, null],
  ])("is refused with %s for what names no agent or no key (%#)", async (code, agentDid, publicKey) => {
    const params = { agentDid, publicKey: publicKey === null ? (await newKeyPair()).publicKey : publicKey };
    expect(await codeOf(call(operatorCallAbout(UNKNOWN), "identity.rekey", params))).toBe(code);
  });
});
