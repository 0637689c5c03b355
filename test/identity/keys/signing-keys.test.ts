import { env } from "cloudflare:workers";
import { reset } from "cloudflare:test";
import { applyD1Migrations } from "cloudflare:test";
import { compactVerify, importJWK } from "jose";
import { beforeEach, describe, expect, test } from "vitest";
import { deriveKey } from "../../../src/identity/keys/derivation.ts";
import { embeddedRegistryFetch, keysResponse } from "../../../src/identity/documents/documents.ts";
import { pruneIdentity } from "../../../src/identity/retention.ts";
import { currentSigningKey, listSigningKeys } from "../../../src/identity/keys/signing-keys.ts";
import { parseKeysDocument, type RegistryKey } from "../../../src/wire/registry-documents.ts";
import {
  call,
  clock,
  codeOf,
  config,
  DAY_MS,
  headerOf,
  heldDatabase,
  NOW_MS,
  operatorCall,
  registered,
  registry,
  rows,
  source,
} from "../fixture.ts";

beforeEach(async () => {
  clock.ms = NOW_MS;
  await reset();
  await applyD1Migrations(env.DB, env.TEST_MIGRATIONS);
});

async function published(): Promise<readonly RegistryKey[]> {
  const document = parseKeysDocument(await (await keysResponse(source)).json());
  if (!document.ok) throw new Error(document.error);
  expect(document.value.malformed).toEqual([]);
  return document.value.keys;
}

const rotate = () => call<{ kid: string; previousKid: string | null }>(operatorCall(), "identity.keys.rotate");
const revokeKey = (kid: unknown) =>
  call<{ currentKid: string; revokedAtMs: number }>(operatorCall(), "identity.keys.revoke", { kid });

async function verifies(token: string): Promise<boolean> {
  const key = (await published()).find(({ kid }) => kid === headerOf(token)["kid"]);
  if (key === undefined || key.status !== "active") return false;
  await compactVerify(token, await importJWK({ kty: "OKP", crv: "Ed25519", x: key.x }, "EdDSA"));
  return true;
}

describe("the signing keys", () => {
  test("begin with one at the first use, whatever is used first", async () => {
    const keys = await published();
    expect(keys).toEqual([
      {
        kid: expect.any(String),
        alg: "EdDSA",
        crv: "Ed25519",
        x: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
        status: "active",
      },
    ]);
    expect(await published()).toEqual(keys);
  });

  test("are one when many use the first at once, and it has its row with the first token", async () => {
    const asked = await Promise.all(Array.from({ length: 8 }, () => currentSigningKey(registry())));
    expect(new Set(asked.map(({ kid }) => kid)).size).toBe(1);
    expect(await rows("SELECT kid FROM registry_keys")).toEqual([]);
    await Promise.all(Array.from({ length: 4 }, () => registered()));
    expect(await rows("SELECT kid FROM registry_keys")).toEqual([{ kid: asked[0]?.kid }]);
  });

  test("are read by strangers, as the list is, from a database that takes no writes", async () => {
    const readOnly = new Proxy(env.DB, {
      get(target, name) {
        if (name === "prepare") {
          return (text: string) => {
            if (!/^\s*(SELECT|WITH)/i.test(text)) throw new Error(`a write: ${text}`);
            return target.prepare(text);
          };
        }
        const member: unknown = Reflect.get(target, name);
        return typeof member === "function" ? (member.bind(target) as unknown) : member;
      },
    });
    const everything = () => Promise.all([rows("SELECT * FROM registry_keys"), rows("SELECT * FROM crl_state")]);
    const ask = embeddedRegistryFetch({ ...source, db: readOnly });
    const both = () => Promise.all([ask("/.well-known/claw-keys.json"), ask("/v1/crl")]);
    const statuses = async () => (await both()).map(({ status }) => status);
    expect(await statuses(), "with nothing in it").toEqual([200, 200]);
    expect(await everything()).toEqual([[], []]);
    await registered();
    const before = await everything();
    clock.ms += 3_600_000;
    expect(await statuses(), "an hour later").toEqual([200, 200]);
    expect(await everything()).toEqual(before);
  });

  test("follow from the secret and the kid, and cannot be exported", async () => {
    const [here, again] = [await deriveKey(registry(), "key-a"), await deriveKey({ ...registry() }, "key-a")];
    const other = await deriveKey(registry(), "key-b");
    const elsewhere = await deriveKey(
      { ...registry(), signingSecret: "another-secret-of-at-least-32-characters" },
      "key-a",
    );
    expect(again.x).toBe(here.x);
    expect(new Set([here.x, other.x, elsewhere.x]).size).toBe(3);
    expect(here.privateKey.extractable).toBe(false);
  });

  test("leave nothing in the database that could sign", async () => {
    await registered();
    const [row] = await rows("SELECT * FROM registry_keys");
    expect(Object.keys(row ?? {}).toSorted()).toEqual([
      "created_at_ms",
      "is_current",
      "kid",
      "retired_at_ms",
      "revoked_at_ms",
      "status",
      "x",
    ]);
  });

  test("sign nothing with a secret that is not theirs, until they are rotated", async () => {
    await registered();
    const changed = { ...config, registrySigningSecret: "another-secret-of-at-least-32-characters" };
    const ctx = operatorCall({ config: changed });
    const params = { name: "beta", framework: "test", publicKey: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" };
    expect(await codeOf(call(ctx, "identity.register", params))).toBe("PROXY_AUTH_DEPENDENCY_UNAVAILABLE");
    await call(ctx, "identity.keys.rotate");
    expect(await codeOf(call(ctx, "identity.register", params))).toBe("answered");
  });
});

describe("a rotation", () => {
  test("signs with a new key, while the old one still verifies what it signed", async () => {
    const before = await registered();
    const { kid, previousKid } = await rotate();
    const after = await registered();
    expect(headerOf(before.credentials.ait)["kid"]).toBe(previousKid);
    expect(headerOf(after.credentials.ait)["kid"]).toBe(kid);
    expect([await verifies(before.credentials.ait), await verifies(after.credentials.ait)]).toEqual([true, true]);
  });

  test("twice at once leaves one current key", async () => {
    await currentSigningKey(registry());
    const made = await Promise.all([rotate(), rotate()]);
    expect(await rows("SELECT kid FROM registry_keys WHERE is_current = 1")).toHaveLength(1);
    const current = await currentSigningKey(registry());
    expect(made.map(({ kid }) => kid)).toContain(current.kid);
    expect((await listSigningKeys(registry())).filter(({ status }) => status === "active")).toHaveLength(3);
  });

  test("before anything was issued keeps the first key, which lists may have been signed with", async () => {
    const [first] = await published();
    expect((await rotate()).previousKid).toBe(first?.kid);
    expect((await published()).map(({ status }) => status)).toEqual(["active", "active"]);
  });

  test("is in the audit", async () => {
    const { kid } = await rotate();
    expect(await rows("SELECT actor, subject, result FROM audit WHERE action = 'identity.keys.rotate'")).toEqual([
      { actor: "operator", subject: `signing_key:${kid}`, result: "ok" },
    ]);
  });
});

describe("the revocation of a key", () => {
  test("ends what it signed, and nothing else", async () => {
    const before = await registered();
    const { previousKid } = await rotate();
    const after = await registered();
    await revokeKey(previousKid);
    expect([await verifies(before.credentials.ait), await verifies(after.credentials.ait)]).toEqual([false, true]);
  });

  test("of the current one makes its successor in the same commit", async () => {
    const { kid } = await currentSigningKey(registry());
    const { currentKid } = await revokeKey(kid);
    expect(currentKid).not.toBe(kid);
    expect((await currentSigningKey(registry())).kid).toBe(currentKid);
    const statuses = new Map((await published()).map((key) => [key.kid, key.status]));
    expect([statuses.get(kid), statuses.get(currentKid), statuses.size]).toEqual(["revoked", "active", 2]);
  });

  test("may be repeated, and is refused for a kid that is not ours", async () => {
    const { previousKid } = await rotate().then(rotate);
    const first = await revokeKey(previousKid);
    clock.ms += 1_000;
    expect(await revokeKey(previousKid)).toEqual(first);
    expect(await codeOf(revokeKey("key-unknown"))).toBe("PROXY_NOT_FOUND");
    for (const kid of ["", 7, undefined, "k".repeat(257)])
      expect(await codeOf(revokeKey(kid))).toBe("PROXY_BAD_REQUEST");
  });

  test("twice at once, a rotation beside it, leaves one current key that is not revoked", async () => {
    const { kid } = await currentSigningKey(registry());
    await Promise.all([revokeKey(kid), rotate(), revokeKey(kid)]);
    const current = await rows<{ kid: string; status: string }>(
      "SELECT kid, status FROM registry_keys WHERE is_current = 1",
    );
    expect(current).toEqual([{ kid: expect.not.stringContaining(kid), status: "active" }]);
  });

  test("while a registration is under way lets it be signed anew, never handed out dead", async () => {
    const { kid } = await currentSigningKey(registry());
    const held = heldDatabase();
    const { publicKey } = await registered().then(() => ({ publicKey: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }));
    const late = call<{ ait: string }>(operatorCall({ db: held.db }), "identity.register", {
      name: "late",
      framework: "test",
      publicKey,
    });
    await held.arrived;
    await revokeKey(kid);
    held.release();
    expect(await verifies((await late).ait)).toBe(true);
  });

  test("is never undone: the database itself refuses", async () => {
    const { kid } = await currentSigningKey(registry());
    await revokeKey(kid);
    const undo = env.DB.prepare("UPDATE registry_keys SET status = 'active' WHERE kid = ?1").bind(kid);
    await expect(undo.run()).rejects.toThrow(/stays revoked/);
  });
});

const prune = (limit = 1_000) => pruneIdentity(env.DB, clock.ms, limit);

describe("retention", () => {
  test("forgets a retired key once nothing that it signed is unexpired, and never the current one", async () => {
    await registered({ ttlSeconds: 40 * 86_400 });
    const { previousKid } = await rotate();
    clock.ms += 39 * DAY_MS;
    await prune();
    expect((await published()).map(({ kid }) => kid)).toContain(previousKid);
    clock.ms += 3 * DAY_MS;
    await prune();
    expect(await published()).toHaveLength(1);
    clock.ms += 400 * DAY_MS;
    await prune();
    expect(await published()).toHaveLength(1);
    expect(await rows("SELECT jti FROM aits")).toEqual([]);
    expect(await rows("SELECT refresh_hash FROM token_pairs")).toEqual([]);
    expect(await rows("SELECT family_id FROM token_families")).toEqual([]);
    expect(await rows("SELECT agent_did FROM agents")).toHaveLength(1);
  });

  test("forgets no more tokens at once than it is told, and the rest when it is repeated", async () => {
    for (let n = 0; n < 3; n += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await registered();
    }
    clock.ms += 400 * DAY_MS;
    const left = async () =>
      Promise.all(
        ["aits", "token_pairs", "token_families"].map(async (table) => (await rows(`SELECT 1 FROM ${table}`)).length),
      );
    const [aits = 0, pairs = 0, families = 0] = await left();
    expect(await prune(2)).toBe(2);
    expect(await left()).toEqual([aits - 2, pairs - 2, families]);
    let pieces = 1;
    // oxlint-disable-next-line no-await-in-loop -- piece after piece
    while ((await prune(2)) === 2) pieces += 1;
    expect(await left()).toEqual([0, 0, 0]);
    expect(pieces).toBeLessThan(6);
  });
});

describe("the registry within the Worker", () => {
  test("answers the same documents as over HTTP, problems included", async () => {
    const ask = embeddedRegistryFetch(source);
    const overHttp = await (await keysResponse(source)).json();
    expect(await (await ask("/.well-known/claw-keys.json")).json()).toEqual(overHttp);
    expect((await ask("/v1/crl")).status).toBe(200);
    expect((await ask("/v1/crl", { method: "POST" })).status).toBe(404);
    const body = JSON.stringify({
      agentDid: "did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A",
      aitJti: "x",
    });
    const headers = { "X-Claw-Agent-Access": "spa_unknown" };
    expect((await ask("/v1/agents/auth/validate", { method: "POST", headers, body })).status).toBe(401);
    expect((await ask("/v1/agents/auth/validate", { method: "POST", headers, body: "{}" })).status).toBe(400);
  });

  test("gives up when its caller's deadline does", async () => {
    const ask = embeddedRegistryFetch(source);
    await expect(ask("/v1/crl", {}, AbortSignal.abort(new Error("too late")))).rejects.toThrow("too late");
    const hanging = {
      ...source,
      db: { prepare: () => ({ bind: () => ({ all: () => new Promise(() => {}) }) }) } as unknown as D1Database,
    };
    const controller = new AbortController();
    const waiting = embeddedRegistryFetch(hanging)("/v1/crl", {}, controller.signal);
    controller.abort(new Error("deadline"));
    await expect(waiting).rejects.toThrow("deadline");
  });

  test("is a failure, not a verdict, while D1 fails", async () => {
    const failing = { bind: () => failing, all: () => Promise.reject(new Error("D1_ERROR")) };
    const broken = { prepare: () => failing };
    const ask = embeddedRegistryFetch({ ...source, db: broken as unknown as D1Database });
    expect((await ask("/.well-known/claw-keys.json")).status).toBe(503);
    expect((await ask("/v1/crl")).status).toBe(503);
  });
});
