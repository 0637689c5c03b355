/** What a device or a key made ends with it: in the gate, in D1, and by the same answer. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { cleanUpBatch } from "../../src/apikeys/cleanup.ts";
import { createApiKey } from "../../src/apikeys/create.ts";
import { findApiKey } from "../../src/apikeys/store.ts";
import { LINEAGE_MAX } from "../../src/authority/lineage.ts";
import { type ApiKeyGrant, fencingTokens } from "../../src/authority/reference.ts";
import { hashSecret } from "../../src/authority/secrets.ts";
import { commitFenced } from "../../src/database/batch.ts";
import type { GateLocal } from "../../src/call/gate.ts";
import { runtimeOf } from "../../src/runtime.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import { contextOf } from "../support/db-spy.ts";
import {
  type Agent,
  apiKeyOf,
  type Caller,
  codeOf,
  type Device,
  fetchWorker,
  type Holder,
  newKey,
  operator,
  OPERATOR_TOKEN,
  pairDevice,
  register,
  result,
  rows,
  rpcResponse,
} from "../support/world.ts";

let agent: Agent;
beforeAll(async () => {
  agent = await register();
}, 60_000);

const ADMIN = ["admin", "tasks:read", "tasks:write"];
let addresses = 0;
/** Each from another address: what is refused here counts as a guess. */
const statusOf = async (caller: Caller): Promise<number> => {
  addresses += 1;
  const headers = { "CF-Connecting-IP": `198.51.100.${addresses}` };
  return (await rpcResponse(caller, "task/list", {}, { headers })).status;
};

async function readEarly(holder: Holder): Promise<ApiKeyGrant> {
  const found = await findApiKey(env.DB, await hashSecret(holder.key));
  if (found === null) throw new Error("the key is not there");
  const { lastUsedAtMs: _, ...grant } = found;
  return grant;
}

/** Hands the gate a call under a key that was read before, as a slow Worker does. */
function callLate(key: ApiKeyGrant, method = "task/list"): Promise<{ ok: boolean }> {
  return env.GATE.getByName(agent.did).call({
    caller: { kind: "apiKey", key },
    surface: "rpc",
    requestId: "late-request",
    origin: null,
    calls: [{ method, params: { agentDid: agent.did } }],
  });
}

function asOperator(path: string, body: unknown): Promise<Response> {
  const headers = { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
  return fetchWorker(
    new Request(`https://proxy.example${path}`, { method: "POST", body: JSON.stringify(body), headers }),
  );
}

const end = (how: string, target: Device | Holder, extra: Record<string, unknown> = {}, by: Caller = operator) =>
  result(by, how, {
    agentDid: agent.did,
    ...(target.kind === "device" ? { deviceId: target.deviceId } : { apiKeyId: target.apiKeyId }),
    ...extra,
  });

/** A chain from a device to a key, to a key of that key, and a task of the last one. */
async function chain(): Promise<{ device: Device; key: Holder; child: Holder }> {
  const device = await pairDevice(agent, ADMIN);
  const key = await apiKeyOf(agent, ADMIN, device);
  const child = await apiKeyOf(agent, ["tasks:read", "tasks:write"], key);
  return { device, key, child };
}

describe("keys that a device made, and those that these made", () => {
  test.each(["device.token.revoke", "device.pair.remove"])(
    "%s: are over when it is answered, also for a Worker that had read them before",
    async (how) => {
      const { device, key, child } = await chain();
      const other = await apiKeyOf(agent, ["tasks:read"], agent);
      const early = [await readEarly(key), await readEarly(child)];
      for (const grant of early) expect(await callLate(grant)).toMatchObject({ ok: true });
      await end(how, device);
      for (const grant of early) expect(await callLate(grant)).toMatchObject({ ok: false });
      expect(await Promise.all([statusOf(key), statusOf(child), statusOf(other)])).toEqual([401, 401, 200]);
      const left = [key, child].map(({ serviceAccountId }) => serviceAccountId);
      for (const id of left) expect(await rows("SELECT 1 FROM relationships WHERE subject_id = ?1", id)).toEqual([]);
      expect(await rows("SELECT 1 FROM api_keys WHERE maker = ?1", `device:${agent.did}/${device.deviceId}`)).toEqual(
        [],
      );
      expect(await rows("SELECT 1 FROM api_key_cleanup")).toEqual([]);
    },
  );

  test("a batch that one of them had begun is undone in D1, be the gate dead", async () => {
    const { device, child } = await chain();
    const grant = await readEarly(child);
    const { principal, generation } = grant;
    const ref = { kind: "apiKey" as const, epoch: 0, expMs: null, principal, generation };
    const fence = { assertCurrent() {}, fence: () => fencingTokens(agent.did, ref, generation) };
    const begun = () => commitFenced(env.DB, fence, [env.DB.prepare("SELECT 1")]);
    expect(await begun()).toMatchObject({ ok: true });
    await end("device.token.revoke", device);
    expect(await begun()).toEqual({ ok: false, error: "authority-ended" });
    const [token] = await rows<{ epoch: number }>(
      "SELECT epoch FROM authority_epochs WHERE authority = ?1",
      `derived:${agent.did}/${device.deviceId}#admin`,
    );
    expect(token?.epoch).toBe(2);
    expect(grant.principal.lineage).toMatchObject([
      { device: device.deviceId, epoch: 1 },
      { apiKey: expect.any(String) },
    ]);
  });

  test("a narrowing ends those that exceed it, for ever, and no others", async () => {
    const device = await pairDevice(agent, ADMIN);
    const wide = await apiKeyOf(agent, ADMIN, device);
    const ofWide = await apiKeyOf(agent, ["tasks:read"], wide);
    const narrow = await apiKeyOf(agent, ["tasks:read"], device);
    await end("device.token.rotate", device, { scopes: ["admin", "tasks:read"] });
    expect(await Promise.all([wide, ofWide, narrow].map(statusOf))).toEqual([401, 401, 200]);
    await end("device.token.rotate", device, { scopes: ADMIN });
    expect(await Promise.all([wide, ofWide, narrow].map(statusOf))).toEqual([401, 401, 200]);
    await end("device.token.revoke", device);
    expect(await statusOf(narrow)).toBe(401);
  });

  test("a rotation that takes nothing away keeps them", async () => {
    const { device, key, child } = await chain();
    await end("device.token.rotate", device);
    expect(await Promise.all([statusOf(key), statusOf(child)])).toEqual([200, 200]);
  });

  test("stay over when the device is paired anew", async () => {
    const { device, key } = await chain();
    const grant = await readEarly(key);
    await end("device.token.revoke", device);
    const { x } = (await crypto.subtle.exportKey("jwk", device.key)) as JsonWebKey;
    const request = await result(agent, "device.pair.request", { publicKey: x, scopes: ADMIN });
    const { requestId, digest } = request;
    await result(operator, "device.pair.approve", { agentDid: agent.did, requestId, digest });
    expect(await callLate(grant)).toMatchObject({ ok: false });
  });

  test("the deletion of a key ends what it made, by whichever of them it is asked", async () => {
    const { key, child } = await chain();
    const grandchild = await apiKeyOf(agent, ["tasks:read"], await apiKeyOf(agent, ADMIN, key));
    expect(await end("apikey/delete", key, {}, key)).toMatchObject({ apiKeyId: key.apiKeyId });
    expect(await Promise.all([key, child, grandchild].map(statusOf))).toEqual([401, 401, 401]);
    const { key: again } = await chain();
    const admin = await apiKeyOf(agent, ADMIN, again);
    // It ends itself by ending its maker, and still gets the answer.
    expect(await end("apikey/delete", again, {}, admin)).toMatchObject({ apiKeyId: again.apiKeyId });
    expect(await statusOf(admin)).toBe(401);
  });

  test("a key that revokes the device it descends from still gets the answer, and nothing more", async () => {
    const device = await pairDevice(agent, [...ADMIN, "devices"]);
    const key = await apiKeyOf(agent, [...ADMIN, "devices"], device);
    expect(await end("device.token.revoke", device, {}, key)).toMatchObject({ deviceId: device.deviceId });
    expect(await statusOf(key)).toBe(401);
  });

  test("what they had begun to make is not made", async () => {
    const { device, key } = await chain();
    const grant = await readEarly(key);
    await end("device.token.revoke", device);
    const before = await rows("SELECT task_id FROM tasks WHERE agent_did = ?1", agent.did);
    expect(await callLate(grant, "task/create")).toMatchObject({ ok: false });
    expect(await rows("SELECT task_id FROM tasks WHERE agent_did = ?1", agent.did)).toEqual(before);
  });

  test("a line of keys has an end", async () => {
    let maker: Caller = await pairDevice(agent, ADMIN);
    for (let depth = 0; depth < LINEAGE_MAX; depth += 1) maker = await apiKeyOf(agent, ADMIN, maker); // oxlint-disable-line no-await-in-loop
    expect(await codeOf(maker, "apikey/create", { name: "k", scopes: ["tasks:read"] })).toBe("PROXY_CONFLICT");
  });
});

describe("apikey/list", () => {
  test("shows the maker of each, and none that has ended", async () => {
    const lister = await register();
    const device = await pairDevice(lister, ADMIN);
    const byDevice = await apiKeyOf(lister, ADMIN, device);
    const byKey = await apiKeyOf(lister, ["tasks:read"], byDevice);
    const byAgent = await apiKeyOf(lister, ["tasks:read"], lister);
    const byOperator = await apiKeyOf(lister, ["tasks:read"]);
    const listed = async (): Promise<Record<string, unknown>> =>
      Object.fromEntries(
        ((await result(lister, "apikey/list", {}))["apiKeys"] as { apiKeyId: string; maker: string }[]).map(
          ({ apiKeyId, maker }) => [apiKeyId, maker],
        ),
      );
    expect(await listed()).toEqual({
      [byDevice.apiKeyId]: `device:${lister.did}/${device.deviceId}`,
      [byKey.apiKeyId]: `apikey:${byDevice.apiKeyId}`,
      [byAgent.apiKeyId]: `agent:${lister.did}`,
      [byOperator.apiKeyId]: "operator",
    });
    await result(operator, "device.token.revoke", { agentDid: lister.did, deviceId: device.deviceId });
    expect(Object.keys(await listed()).toSorted()).toEqual([byAgent.apiKeyId, byOperator.apiKeyId].toSorted());
  });
});

describe("the shared secret", () => {
  const secretScopes = [...ADMIN, "relay", "send"];

  test("stays when who was told it ends, and the answer says so; also where what descends from it was told", async () => {
    const device = await pairDevice(agent, secretScopes);
    const key = await apiKeyOf(agent, secretScopes, device);
    await result(key, "shared.auth.rotate", {});
    expect(await end("apikey/delete", key)).toMatchObject({ sharedSecretKnown: true });
    expect(await end("device.token.rotate", device)).toMatchObject({ sharedSecretKnown: true });
    expect(await end("device.token.revoke", device)).toMatchObject({ sharedSecretKnown: true });
    const other = await pairDevice(agent, secretScopes);
    expect(await end("device.token.revoke", other)).not.toHaveProperty("sharedSecretKnown");
    await result(agent, "shared.auth.rotate", {});
    expect(await end("device.pair.remove", device)).not.toHaveProperty("sharedSecretKnown");
  });
});

describe("keys of an older version, without a recorded lineage", () => {
  const forget = async (...keys: Holder[]): Promise<void> => {
    for (const { apiKeyId } of keys) {
      // oxlint-disable-next-line no-await-in-loop
      await env.DB.prepare("UPDATE api_keys SET maker = NULL, lineage = NULL WHERE api_key_id = ?1")
        .bind(apiKeyId)
        .run();
    }
  };

  test("end with the device that stands at their beginning", async () => {
    const { device, key, child } = await chain();
    await forget(key, child);
    expect(await Promise.all([statusOf(key), statusOf(child)])).toEqual([200, 200]);
    const early = await readEarly(child);
    await end("device.token.revoke", device);
    expect(await callLate(early)).toMatchObject({ ok: false });
    expect(await Promise.all([statusOf(key), statusOf(child)])).toEqual([401, 401]);
    expect(await rows("SELECT 1 FROM api_keys WHERE api_key_id IN (?1, ?2)", key.apiKeyId, child.apiKeyId)).toEqual([]);
  });

  test("end with the key that made them, and have ended where that one has gone", async () => {
    const { key, child } = await chain();
    await forget(key, child);
    const early = await readEarly(child);
    await end("apikey/delete", key);
    expect(await callLate(early)).toMatchObject({ ok: false });
    expect(await statusOf(child)).toBe(401);
  });

  test("made by the agent, or by nobody that is known, hold on", async () => {
    const own = await apiKeyOf(agent, ["tasks:read"], agent);
    const unknown = await apiKeyOf(agent, ["tasks:read"], agent);
    await forget(own, unknown);
    await env.DB.prepare("UPDATE api_keys SET first_maker = NULL WHERE api_key_id = ?1").bind(unknown.apiKeyId).run();
    const device = await pairDevice(agent, ADMIN);
    await end("device.token.revoke", device);
    expect(await Promise.all([statusOf(own), statusOf(unknown)])).toEqual([200, 200]);
  });
});

describe("a key that the operator makes while everything of the agent is ended", () => {
  test.each(["/v1/agents/rekey", "/v1/agents/revoke"])("is not made after %s, and leaves no grant", async (path) => {
    const own = await register();
    const ctx = await contextOf(operator, env.DB);
    const gate = { apiKeys: { generation: () => 0 }, isEnded: () => false } as unknown as GateLocal;
    const before = await rows("SELECT * FROM relationships ORDER BY 1, 2, 3, 4, 5, 6");
    const db = {
      prepare: env.DB.prepare.bind(env.DB),
      withSession: (at: "first-primary") => {
        const session = env.DB.withSession(at);
        return {
          prepare: session.prepare.bind(session),
          getBookmark: () => null,
          async batch(statements: D1PreparedStatement[]) {
            // The end comes between what was read and what is committed.
            expect((await asOperator(path, { agentDid: own.did, publicKey: (await newKey()).x })).status).toBe(200);
            return session.batch(statements);
          },
        };
      },
    } as unknown as D1Database;
    const made = createApiKey({ ...ctx, db, agentDid: own.did as AgentDid }, gate, own.did as AgentDid, {
      name: "late",
      scopes: ["tasks:read"],
      expiresAtMs: null,
    });
    await expect(made).rejects.toMatchObject({ code: "PROXY_CONFLICT" });
    expect(await rows("SELECT 1 FROM api_keys WHERE agent_did = ?1", own.did)).toEqual([]);
    expect(await rows("SELECT * FROM relationships ORDER BY 1, 2, 3, 4, 5, 6")).toEqual(before);
  });
});

/** Puts many keys of an agent there, as they would have been made one by one. */
async function insertKeys(of: Agent, count: number, maker: string, lineage: unknown): Promise<void> {
  const ids = JSON.stringify(Array.from({ length: count }, () => newUlid(Date.now())));
  await env.DB.prepare(
    `INSERT INTO api_keys (api_key_id, key_hash, service_account_id, agent_did, tenant_id, name, scopes, generation,
       created_at_ms, maker, lineage)
     SELECT value, value, value, ?2, 't', 'many', 'tasks:read', 0, 0, ?3, ?4 FROM json_each(?1)`,
  )
    .bind(ids, of.did, maker, JSON.stringify(lineage))
    .run();
}

describe("thousands of descendants", () => {
  test("of an agent: it is ended in one bounded batch, and no key of it is let in; their rows go after", async () => {
    const many = await register();
    const key = await apiKeyOf(many, ["tasks:read"], many);
    await insertKeys(many, 3_000, `agent:${many.did}`, []);
    expect((await asOperator("/v1/agents/revoke", { agentDid: many.did })).status).toBe(200);
    expect(await statusOf(key)).toBe(401);
    expect((await result(operator, "apikey/list", { agentDid: many.did }))["apiKeys"]).toEqual([]);
    const raised = await rows("SELECT 1 FROM authority_epochs WHERE instr(authority, ?1) > 0", many.did);
    expect(raised.length).toBeLessThanOrEqual(3);
    const deps = { db: env.DB, config: runtimeOf(env).config, now: Date.now };
    while ((await cleanUpBatch(deps, many.did as AgentDid)) === "more"); // oxlint-disable-line no-await-in-loop
    expect(await rows("SELECT 1 FROM api_keys WHERE agent_did = ?1", many.did)).toEqual([]);
  });

  test("are over by one bounded batch, and their rows go in bounded ones, without the call that ended them", async () => {
    const device = await pairDevice(agent, ADMIN);
    const first = await apiKeyOf(agent, ["tasks:read"], device);
    const grant = await readEarly(first);
    const maker = `device:${agent.did}/${device.deviceId}`;
    await insertKeys(agent, 2_500, maker, grant.principal.lineage);
    await end("device.token.revoke", device);
    expect(await callLate(grant)).toMatchObject({ ok: false });
    const left = async (): Promise<number> => (await rows("SELECT 1 FROM api_keys WHERE maker = ?1", maker)).length;
    const afterCall = await left();
    expect(afterCall).toBeGreaterThan(0);
    const deps = { db: env.DB, config: runtimeOf(env).config, now: Date.now };
    while ((await cleanUpBatch(deps, null)) === "more"); // oxlint-disable-line no-await-in-loop
    expect(await left()).toBe(0);
    expect(await rows("SELECT 1 FROM api_key_cleanup")).toEqual([]);
  });
});
