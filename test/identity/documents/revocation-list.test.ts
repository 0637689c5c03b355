import { env } from "cloudflare:workers";
import { compactVerify, importJWK } from "jose";
import { beforeEach, describe, expect, test } from "vitest";
import { execute } from "../../../src/database/read.ts";
import { crlResponse } from "../../../src/identity/documents/documents.ts";
import { dateListStatement } from "../../../src/identity/documents/revocation-list.ts";
import { currentSigningKey, listSigningKeys } from "../../../src/identity/keys/signing-keys.ts";
import { type CrlClaims, parseCrlBody, parseCrlClaims, parseCrlHeader } from "../../../src/wire/registry-documents.ts";
import {
  call,
  claimsOf,
  clock,
  config,
  headerOf,
  NOW_MS,
  operatorCall,
  operatorCallAbout,
  registered,
  registry,
  rows,
  SECOND_MS,
  source,
  type TestAgent,
} from "../fixture.ts";

let startMs = NOW_MS;
beforeEach(() => {
  // Each test an hour after the one before: `iat` never goes back, within one file neither.
  startMs += 3_600_000;
  clock.ms = startMs;
});

const jtiOf = (agent: TestAgent): string => claimsOf(agent.credentials.ait)["jti"] as string;
const revoke = (agent: TestAgent, params = {}): Promise<unknown> =>
  call(operatorCallAbout(agent.credentials.agentDid), "identity.revoke", {
    agentDid: agent.credentials.agentDid,
    ...params,
  });

/** The list as any registry client reads it: the key from the keys document, the claims from the verified JWS. */
async function fetchList(): Promise<{ claims: CrlClaims; kid: string; text: string }> {
  const text = await (await crlResponse(source)).text();
  const jws = parseCrlBody(JSON.parse(text));
  if (!jws.ok) throw new Error(jws.error);
  const header = parseCrlHeader(headerOf(jws.value));
  if (!header.ok) throw new Error(header.error);
  const key = (await listSigningKeys(registry())).find(({ kid }) => kid === header.value.kid);
  const { payload } = await compactVerify(
    jws.value,
    await importJWK({ kty: "OKP", crv: "Ed25519", x: key?.x ?? "" }, "EdDSA"),
  );
  const claims = parseCrlClaims(JSON.parse(new TextDecoder().decode(payload)));
  if (!claims.ok) throw new Error(claims.error);
  return { claims: claims.value, kid: header.value.kid, text };
}

const listed = (claims: CrlClaims): string[] => claims.revocations.map(({ jti }) => jti);

describe("the revocation list", () => {
  test("is signed and legal while it is empty", async () => {
    const { claims } = await fetchList();
    expect(claims).toEqual({
      iss: config.registryIssuer,
      jti: expect.stringMatching(/^[0-9A-HJKMNP-TV-Z]{26}$/),
      iat: clock.ms / 1_000 - 300,
      exp: clock.ms / 1_000 - 300 + 86_400,
      revocations: [],
    });
  });

  test("holds a revocation from its answer on, and the same signature serves until then", async () => {
    const agent = await registered();
    const before = await fetchList();
    expect((await fetchList()).text).toBe(before.text);
    await revoke(agent, { reason: 'a "quoted" \\ reason, ünïcödé' });
    const { claims } = await fetchList();
    expect(claims.revocations).toContainEqual({
      jti: jtiOf(agent),
      agentDid: agent.credentials.agentDid,
      reason: 'a "quoted" \\ reason, ünïcödé',
      revokedAt: clock.ms,
    });
  });

  test("is signed anew after a minute, and when the key is another", async () => {
    const first = await fetchList();
    clock.ms += 59 * SECOND_MS;
    expect((await fetchList()).text).toBe(first.text);
    clock.ms += SECOND_MS;
    const second = await fetchList();
    expect(second.claims.iat).toBe(first.claims.iat + 60);
    await call(operatorCall(), "identity.keys.rotate");
    expect((await fetchList()).kid).toBe((await currentSigningKey(registry())).kid);
  });

  test("is dated by housekeeping, and never goes back in time, whatever the clock of this isolate says", async () => {
    await execute(env.DB, dateListStatement(clock.ms));
    const first = await fetchList();
    expect(first.claims.iat).toBe(clock.ms / 1_000);
    const agent = await registered();
    clock.ms -= 1_800_000;
    await revoke(agent);
    const second = await fetchList();
    expect(second.claims.iat).toBe(first.claims.iat);
    expect(listed(second.claims)).toContain(jtiOf(agent));
  });

  test("is dated later by each revocation, in one second too, and never beyond what its readers allow", async () => {
    const agents = await Promise.all(Array.from({ length: 40 }, () => registered()));
    await execute(env.DB, dateListStatement(clock.ms));
    const iats = [(await fetchList()).claims.iat];
    for (const agent of agents) {
      // oxlint-disable-next-line no-await-in-loop -- one revocation after the other
      await revoke(agent);
      // oxlint-disable-next-line no-await-in-loop
      iats.push((await fetchList()).claims.iat - clock.ms / 1_000);
    }
    expect(iats.slice(1)).toEqual(agents.map((_, at) => Math.min(at + 1, 30)));
  });

  test("leaves out what has expired, once no clock within the skew allowed can think otherwise", async () => {
    const agent = await registered({ ttlSeconds: 60 });
    await revoke(agent);
    clock.ms += 60 * SECOND_MS + 299 * SECOND_MS;
    expect(listed((await fetchList()).claims)).toContain(jtiOf(agent));
    clock.ms += 61 * SECOND_MS;
    expect(listed((await fetchList()).claims)).not.toContain(jtiOf(agent));
  });

  test("asked for by many at once is the same for all", async () => {
    await revoke(await registered());
    const texts = await Promise.all(Array.from({ length: 8 }, async () => (await crlResponse(source)).text()));
    expect(new Set(texts).size).toBe(1);
  });

  test(
    "holds 100 000 revocations within 24 MiB, without their reasons when they would not fit",
    { timeout: 60_000 },
    async () => {
      const agent = await registered();
      const fill = (from: number, reason: string | null) =>
        env.DB.prepare(
          `INSERT INTO aits (jti, agent_did, kid, issued_at_ms, expires_at_ms, revoked_at_ms, revoked_reason)
         WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 + 49999)
         SELECT printf('01%024d', i), ?2, 'k', 0, ?3, ?4, ?5 FROM n`,
        )
          .bind(from, agent.credentials.agentDid, clock.ms + 3_600_000, clock.ms, reason)
          .run();
      await fill(0, null);
      await fill(50_000, "r".repeat(200));
      await revoke(agent);
      const began = performance.now();
      await (await crlResponse(source)).text();
      console.log("SIGN", performance.now() - began);
      const { claims, text } = await fetchList();
      console.log(
        `100 000 entries: ${(text.length / 1_048_576).toFixed(1)} MiB in ${Math.round(performance.now() - began)} ms`,
      );
      expect(text.length).toBeLessThanOrEqual(24 * 1_048_576);
      expect(new Set(listed(claims)).size).toBeGreaterThanOrEqual(100_001);
      expect(claims.revocations.every(({ reason }) => reason === undefined)).toBe(true);
      await env.DB.prepare("DELETE FROM aits WHERE kid = 'k'").run();
    },
  );
});

test("nothing is listed twice", async () => {
  const { claims } = await fetchList();
  expect(new Set(listed(claims)).size).toBe(claims.revocations.length);
  expect(await rows("SELECT id FROM crl_state")).toHaveLength(1);
});
