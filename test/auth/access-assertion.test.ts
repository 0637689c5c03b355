/** Cloudflare Access: whose assertions count, for what, and what a stranger can make of them. */
import { env } from "cloudflare:workers";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { createAssertionVerifier } from "../../src/auth/access-assertion.ts";
import { fetchWorker, rows } from "../support/world.ts";

const TEAM = "team.cloudflareaccess.com";
const ISSUER = `https://${TEAM}`;
const AUDIENCE = "a".repeat(64);
const ROLES = new Map([
  ["alice@example.com", "owner"],
  ["example.com", "viewer"],
] as const);
const SETTINGS = { teamDomain: TEAM, audience: AUDIENCE, roles: ROLES };

type Signer = { kid: string; key: CryptoKey; jwk: object };
const keys: Record<string, Signer> = {};

beforeAll(async () => {
  for (const kid of ["first", "second", "forged"]) {
    const { privateKey, publicKey } = await generateKeyPair("RS256", { extractable: true });
    keys[kid] = { kid, key: privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg: "RS256", use: "sig" } };
  }
});
afterEach(() => vi.restoreAllMocks());

const nowSeconds = (): number => Math.floor(Date.now() / 1_000);
function sign(claims: Record<string, unknown> = {}, signer = keys["first"]!, header: object = {}): Promise<string> {
  const usual = { iss: ISSUER, aud: [AUDIENCE], email: "alice@example.com", iat: nowSeconds(), exp: nowSeconds() + 60 };
  const given = Object.fromEntries(Object.entries({ ...usual, ...claims }).filter(([, value]) => value !== undefined));
  return new SignJWT(given).setProtectedHeader({ alg: "RS256", kid: signer.kid, ...header }).sign(signer.key);
}

/** What the team publishes, and how often it was asked. */
function team(...kids: string[]) {
  const published = { kids };
  const ask = vi.fn(async (_url: string, _init?: RequestInit) =>
    Response.json({ keys: published.kids.map((kid) => keys[kid]!.jwk) }),
  );
  return { published, ask, verifier: createAssertionVerifier(SETTINGS, ask) };
}
const reasonOf = async (
  verifier: ReturnType<typeof createAssertionVerifier>,
  assertion: string,
  nowMs = Date.now(),
) => {
  const verified = await verifier.verify(assertion, nowMs);
  return verified.ok ? verified.value : verified.error.reason;
};

describe("an assertion of Cloudflare Access", () => {
  test("names a person, whose address goes before its domain", async () => {
    const { verifier, ask } = team("first");
    expect(await reasonOf(verifier, await sign())).toEqual({
      kind: "operator",
      name: "alice@example.com",
      role: "owner",
      id: "alice@example.com",
      isRevocable: false,
    });
    expect(await reasonOf(verifier, await sign({ email: "Bob@Example.com" }))).toMatchObject({
      name: "bob@example.com",
      role: "viewer",
    });
    expect(ask.mock.calls.map(([url]) => url)).toEqual([`${ISSUER}/cdn-cgi/access/certs`]);
  });

  test.each(["mallory@example.org", "mallory@sub.example.com", "example.com", "a@b@example.com ", "", undefined, 7])(
    "gives no role to %j",
    async (email) => {
      expect(await reasonOf(team("first").verifier, await sign({ email }))).toBe("access-role-none");
    },
  );

  test("counts for this application, from this team, and until it expires", async () => {
    const { verifier } = team("first");
    for (const claims of [
      { aud: ["b".repeat(64)] },
      { aud: undefined },
      { iss: "https://other.cloudflareaccess.com" },
      { iss: undefined },
      { exp: nowSeconds() - 1 },
      { exp: undefined },
      { nbf: nowSeconds() + 300 },
    ])
      expect(await reasonOf(verifier, await sign(claims)), JSON.stringify(claims)).toBe("access-assertion-invalid");
    const assertion = await sign();
    expect(await reasonOf(verifier, assertion)).toMatchObject({ role: "owner" });
    expect(await reasonOf(verifier, assertion, Date.now() + 61_000)).toBe("access-assertion-invalid");
  });

  test("that is forged is refused: another key under a known id, no signature, a secret made of the public key", async () => {
    const { verifier } = team("first");
    const forged = { ...keys["forged"]!, kid: "first" };
    const [header = "", payload = "", signature = ""] = (await sign()).split(".");
    const encode = (value: object): string => btoa(JSON.stringify(value)).replace(/=+$/, "");
    const secret = new TextEncoder().encode(JSON.stringify(keys["first"]!.jwk));
    const confused = await new SignJWT({
      iss: ISSUER,
      aud: AUDIENCE,
      email: "alice@example.com",
      exp: nowSeconds() + 60,
    })
      .setProtectedHeader({ alg: "HS256", kid: "first" })
      .sign(secret);
    const embedded = await sign({}, keys["forged"], { kid: "first", jwk: keys["forged"]!.jwk });
    for (const assertion of [
      await sign({}, forged),
      `${encode({ alg: "none", kid: "first" })}.${payload}.`,
      `${header}.${encode({ iss: ISSUER, aud: AUDIENCE, email: "eve@example.com", exp: nowSeconds() + 60 })}.${signature}`,
      confused,
      embedded,
      "no.jwt",
      "..",
    ])
      expect(await reasonOf(verifier, assertion)).toBe("access-assertion-invalid");
  });

  test("is verified by a key that the team has changed to, and by none that it has taken back for an hour", async () => {
    const { verifier, published, ask } = team("first");
    await reasonOf(verifier, await sign());
    published.kids = ["second"];
    const nowMs = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs + 31_000);
    const assertion = await sign({}, keys["second"]);
    expect(await reasonOf(verifier, assertion)).toMatchObject({ role: "owner" });
    expect(ask).toHaveBeenCalledTimes(2);
    expect(await reasonOf(verifier, await sign())).toBe("access-assertion-invalid");
    clock.mockRestore();
  });

  test("of an unknown key causes one look in 30 s, and none for a while after a failure", async () => {
    const { verifier, ask } = team("first");
    await reasonOf(verifier, await sign());
    for (let n = 0; n < 5; n++)
      expect(await reasonOf(verifier, await sign({}, keys["forged"]))).toBe("access-assertion-invalid");
    expect(ask).toHaveBeenCalledTimes(1);

    const out = vi.fn(async () => new Response("busy", { status: 503 }));
    const unable = createAssertionVerifier(SETTINGS, out);
    for (let n = 0; n < 5; n++) expect(await reasonOf(unable, await sign())).toBe("access-keys-unavailable");
    expect(out).toHaveBeenCalledTimes(1);
  });
});

describe("a person behind Cloudflare Access", () => {
  const settings = {
    ...env,
    ACCESS_TEAM_DOMAIN: TEAM,
    ACCESS_AUD: AUDIENCE,
    ACCESS_ROLES: "alice@example.com=owner,example.com=viewer",
  } as Env;
  const publish = () =>
    vi.spyOn(globalThis, "fetch").mockImplementation(async () => Response.json({ keys: [keys["first"]!.jwk] }));
  const ask = async (method: string, path: string, headers: Record<string, string>, body?: unknown, to = settings) => {
    const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const answer = await fetchWorker(new Request(`https://proxy.example${path}`, init), to);
    return { status: answer.status, body: await answer.json<Record<string, unknown>>() };
  };
  const asserted = async (claims: Record<string, unknown> = {}): Promise<Record<string, string>> => ({
    "Content-Type": "application/json",
    "Cf-Access-Jwt-Assertion": await sign(claims),
  });

  test("is an operator with the role that the settings give, by address in the audit", async () => {
    publish();
    const made = await ask("POST", "/v1/invites", await asserted(), {});
    expect(made.status).toBe(201);
    expect(
      await rows("SELECT actor, operator FROM audit WHERE subject = ?", `invite:${String(made.body["inviteId"])}`),
    ).toEqual([{ actor: "operator:alice@example.com", operator: "alice@example.com" }]);
    const bob = { email: "bob@example.com" };
    expect((await ask("GET", "/v1/agents", await asserted(bob))).status).toBe(200);
    expect((await ask("POST", "/v1/invites", await asserted(bob), {})).status).toBe(403);
    expect((await ask("GET", "/v1/agents", await asserted({ email: "eve@example.org" }))).status).toBe(403);
    expect((await ask("GET", "/v1/agents", await asserted({ aud: ["c".repeat(64)] }))).status).toBe(401);
  });

  test("changes nothing by a request that a page of another site made", async () => {
    publish();
    const headers = await asserted();
    for (const [name, value] of [
      ["Origin", "https://evil.example"],
      ["Origin", "null"],
      ["Sec-Fetch-Site", "cross-site"],
      ["Sec-Fetch-Site", "same-site"],
    ] as const)
      expect((await ask("POST", "/v1/invites", { ...headers, [name]: value }, {})).status).toBe(403);
    const own = { ...headers, Origin: "https://proxy.example", "Sec-Fetch-Site": "same-origin" };
    expect((await ask("POST", "/v1/invites", own, {})).status).toBe(201);
  });

  test("is nobody where the installation takes no assertions, and where a route is not an operator's", async () => {
    const asked = publish();
    expect((await ask("GET", "/v1/agents", await asserted(), undefined, env)).body["code"]).toBe(
      "PROXY_AUTH_MISSING_TOKEN",
    );
    expect((await ask("GET", "/pair/peers", await asserted())).body["code"]).toBe("PROXY_AUTH_MISSING_TOKEN");
    expect(asked).not.toHaveBeenCalled();
  });
});
