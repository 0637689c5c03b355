import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { findApiKey } from "../../src/apikeys/store.ts";
import type { ApiKeyGrant } from "../../src/authority/reference.ts";
import { sha256Base64Url } from "../../src/wire/proof.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import {
  type Agent,
  apiKeyOf,
  type Caller,
  codeOf,
  createTask,
  fetchWorker,
  type Holder,
  newKey,
  operator,
  OPERATOR_TOKEN,
  pairDevice,
  register,
  result,
  rows,
  rpc,
  rpcResponse,
  tuplesOf,
} from "../support/world.ts";

let agent: Agent;
beforeAll(async () => {
  agent = await register();
}, 60_000);

const statusOf = async (caller: Caller): Promise<number> => (await rpcResponse(caller, "task/list", {})).status;
const hashOf = (key: string): Promise<string> => sha256Base64Url(new TextEncoder().encode(key));

function asOperator(path: string, body: unknown): Promise<Response> {
  const headers = { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
  return fetchWorker(
    new Request(`https://proxy.example${path}`, { method: "POST", body: JSON.stringify(body), headers }),
  );
}

/** Hands the gate a call under a key that was read before; as a Worker does that was slow to ask. */
function callLate(key: ApiKeyGrant): Promise<{ ok: boolean }> {
  const calls = [{ method: "task/list", params: {} }];
  return env.GATE.getByName(agent.did).call({
    caller: { kind: "apiKey", key },
    surface: "rpc",
    requestId: "late-request",
    origin: null,
    calls,
  });
}

async function readEarly(holder: Holder): Promise<ApiKeyGrant> {
  const found = await findApiKey(env.DB, await hashOf(holder.key));
  if (found === null) throw new Error("the key is not there");
  const { lastUsedAtMs, ...grant } = found;
  expect(lastUsedAtMs === null || lastUsedAtMs > 0).toBe(true);
  return grant;
}

describe("a key", () => {
  test("is stored as its hash alone, and its service account may make tasks for its agent", async () => {
    const holder = await apiKeyOf(agent, ["tasks:read", "tasks:write"], agent);
    const [row] = await rows("SELECT * FROM api_keys WHERE api_key_id = ?1", holder.apiKeyId);
    expect(JSON.stringify(row)).not.toContain(holder.key.slice(4));
    expect(row).toMatchObject({
      key_hash: await hashOf(holder.key),
      creator_user_id: agent.ownerDid,
      creator_service_account_id: null,
    });
    expect(await tuplesOf(`agent:${agent.did}`)).toContain(`executor@service_account:${holder.serviceAccountId}`);
    expect(await tuplesOf(`tenant:${agent.tenantId}`)).toContain(`member@service_account:${holder.serviceAccountId}`);
    await createTask(holder, { agentDid: agent.did });
  });

  test("made by a service account names it as its creator, and by the operator nobody", async () => {
    const admin = await apiKeyOf(agent, ["admin", "tasks:read"]);
    const [byOperator] = await rows("SELECT * FROM api_keys WHERE api_key_id = ?1", admin.apiKeyId);
    expect(byOperator).toMatchObject({ creator_user_id: null, creator_service_account_id: null });
    const child = await apiKeyOf(agent, ["tasks:read"], admin);
    const [byAdmin] = await rows("SELECT * FROM api_keys WHERE api_key_id = ?1", child.apiKeyId);
    expect(byAdmin).toMatchObject({ creator_user_id: null, creator_service_account_id: admin.serviceAccountId });
  });

  test("never holds a scope that its creator does not", async () => {
    const admin = await apiKeyOf(agent, ["admin", "tasks:read"]);
    const device = await pairDevice(agent, ["admin", "tasks:write"]);
    const wanted = { agentDid: agent.did, name: "k" };
    expect(await codeOf(admin, "apikey/create", { ...wanted, scopes: ["tasks:read", "tasks:write"] })).toBe(
      "PROXY_AUTH_FORBIDDEN",
    );
    expect(await codeOf(device, "apikey/create", { ...wanted, scopes: ["devices"] })).toBe("PROXY_AUTH_FORBIDDEN");
    await result(device, "apikey/create", { ...wanted, scopes: ["tasks:write"] });
    const reader = await apiKeyOf(agent, ["tasks:read"]);
    expect(await codeOf(reader, "apikey/create", { ...wanted, scopes: ["tasks:read"] })).toBe("PROXY_AUTH_FORBIDDEN");
    expect(await codeOf(reader, "task/create", { agentDid: agent.did })).toBe("PROXY_AUTH_FORBIDDEN");
  });

  test("of another agent is as if it did not exist", async () => {
    const other = await register();
    const holder = await apiKeyOf(agent, ["tasks:read"]);
    const missing = await rpc(other, "apikey/delete", { apiKeyId: "01JDA00000000000000000000A" });
    expect(await rpc(other, "apikey/delete", { apiKeyId: holder.apiKeyId })).toEqual(missing);
    expect(missing.error?.data?.["code"]).toBe("PROXY_NOT_FOUND");
    expect(await codeOf(other, "apikey/create", { agentDid: agent.did, name: "k", scopes: ["relay"] })).toBe(
      "PROXY_NOT_FOUND",
    );
    expect(await codeOf(other, "apikey/list", { agentDid: agent.did })).toBe("PROXY_NOT_FOUND");
    expect((await result(other, "apikey/list", {}))["apiKeys"]).toEqual([]);
    expect(await statusOf(holder)).toBe(200);
  });

  test("is listed page by page without the key, with the minute of its last use", async () => {
    const lister = await register();
    const holders = [
      await apiKeyOf(lister, ["tasks:read"]),
      await apiKeyOf(lister, ["tasks:read"]),
      await apiKeyOf(lister, ["relay"]),
    ];
    await result(holders[0] ?? operator, "task/list", {});
    // The use is noted off the request's path.
    await expect
      .poll(
        async () =>
          (await rows("SELECT 1 FROM api_keys WHERE agent_did = ?1 AND last_used_at_ms IS NOT NULL", lister.did))
            .length,
      )
      .toBe(1);
    const first = await result(lister, "apikey/list", { limit: 2 });
    const second = await result(lister, "apikey/list", { limit: 2, cursor: first["nextCursor"] });
    const listed = [
      ...(first["apiKeys"] as Record<string, unknown>[]),
      ...(second["apiKeys"] as Record<string, unknown>[]),
    ];
    expect(listed.map((each) => each["apiKeyId"])).toEqual(holders.map(({ apiKeyId }) => apiKeyId).toSorted());
    expect(second).not.toHaveProperty("nextCursor");
    const used = listed.find((each) => each["apiKeyId"] === holders[0]?.apiKeyId);
    expect(Number(used?.["lastUsedAtMs"]) % 60_000).toBe(0);
    for (const { key } of holders) expect(JSON.stringify(listed)).not.toContain(key.slice(4));
  });

  test("ends by itself when its time is up, and cannot be made for the past", async () => {
    const wanted = { agentDid: agent.did, name: "short", scopes: ["tasks:read"] };
    expect(await codeOf(agent, "apikey/create", { ...wanted, expiresAtMs: Date.now() - 1 })).toBe("PROXY_BAD_REQUEST");
    const made = await result(agent, "apikey/create", { ...wanted, expiresAtMs: Date.now() + 3_600_000 });
    const holder: Holder = { kind: "apiKey", ...(made as { apiKeyId: string; serviceAccountId: string; key: string }) };
    expect(await statusOf(holder)).toBe(200);
    await env.DB.prepare("UPDATE api_keys SET expires_at_ms = ?2 WHERE api_key_id = ?1")
      .bind(holder.apiKeyId, Date.now() - 1)
      .run();
    expect(await statusOf(holder)).toBe(401);
  });

  test("ends at the latest with the key or the device token it was made with", async () => {
    const soonMs = Date.now() + 3_600_000;
    const admin = { agentDid: agent.did, name: "k", scopes: ["admin", "tasks:read"] };
    const short = await result(operator, "apikey/create", { ...admin, expiresAtMs: soonMs });
    const holder = { kind: "apiKey", ...short } as Holder;
    const endOf = async (made: Record<string, unknown>): Promise<unknown> =>
      (await rows("SELECT expires_at_ms FROM api_keys WHERE api_key_id = ?1", made["apiKeyId"]))[0]?.["expires_at_ms"];
    expect(await endOf(await result(holder, "apikey/create", admin))).toBe(soonMs);
    expect(await endOf(await result(holder, "apikey/create", { ...admin, expiresAtMs: null }))).toBe(soonMs);
    expect(await endOf(await result(holder, "apikey/create", { ...admin, expiresAtMs: soonMs - 1 }))).toBe(soonMs - 1);
    expect(await codeOf(holder, "apikey/create", { ...admin, expiresAtMs: soonMs + 1 })).toBe("PROXY_AUTH_FORBIDDEN");
    const device = await pairDevice(agent, ["admin", "tasks:read"]);
    const tokenEndMs = Number(await endOf(await result(device, "apikey/create", admin)));
    expect(Math.abs(tokenEndMs - Date.now() - 90 * 86_400_000)).toBeLessThan(60_000);
    const later = { ...admin, expiresAtMs: tokenEndMs + 1 };
    expect(await codeOf(device, "apikey/create", later)).toBe("PROXY_AUTH_FORBIDDEN");
    expect(await endOf(await result(agent, "apikey/create", later))).toBe(tokenEndMs + 1);
    expect(await endOf(await result(agent, "apikey/create", admin))).toBeNull();
  });

  test("that nobody made hears no more than one that was deleted", async () => {
    const holder = await apiKeyOf(agent, ["tasks:read"]);
    await result(operator, "apikey/delete", { apiKeyId: holder.apiKeyId });
    const answers = [holder.key, `spk_${"A".repeat(43)}`].map(async (key) => {
      const response = await rpcResponse({ ...holder, key }, "task/list", {});
      const { requestId, ...body } = await response.json<Record<string, unknown>>();
      return [response.status, requestId !== undefined, body];
    });
    const [deleted, unknown] = await Promise.all(answers);
    expect(deleted).toEqual(unknown);
    expect(deleted?.[0]).toBe(401);
  });
});

describe("a request for a device", () => {
  const requested = async (x?: string): Promise<{ requestId: string; digest: string }> => {
    const publicKey = x ?? (await newKey()).x;
    const { requestId, digest } = await result(agent, "device.pair.request", { publicKey, scopes: ["relay"] });
    return { requestId: String(requestId), digest: String(digest) };
  };
  const scopes = ["relay", "devices", "admin"];

  test("of the agent is not approved by a key of the agent's own making, nor by one that such a key made", async () => {
    const request = await requested();
    const unknown = { ...request, requestId: newUlid(Date.now()) };
    const own = await apiKeyOf(agent, scopes, agent);
    const child = await apiKeyOf(agent, scopes, own);
    const old = await apiKeyOf(agent, scopes, agent);
    await env.DB.prepare("UPDATE api_keys SET first_maker = NULL WHERE api_key_id = ?1").bind(old.apiKeyId).run();
    for (const key of [own, child, old]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const refused = await rpc(key, "device.pair.approve", request);
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(refused).toEqual(await rpc(key, "device.pair.approve", unknown));
      expect(refused.error?.data?.["code"]).toBe("PROXY_NOT_FOUND");
    }
    expect((await result(agent, "device.pair.list", {}))["pending"]).toMatchObject([{ requestId: request.requestId }]);
    const others = await apiKeyOf(agent, scopes);
    await result(others, "device.pair.approve", request);
  });

  test("is approved by a key that the operator or a device is behind, of whatever version", async () => {
    const old = await apiKeyOf(agent, scopes);
    await env.DB.prepare("UPDATE api_keys SET first_maker = NULL WHERE api_key_id = ?1").bind(old.apiKeyId).run();
    await result(old, "device.pair.approve", await requested());
    await result(await apiKeyOf(agent, scopes, old), "device.pair.approve", await requested());
    const device = await pairDevice(agent, scopes);
    await result(await apiKeyOf(agent, scopes, device), "device.pair.approve", await requested());
  });

  test("to pair a device anew is not approved by a key that the device made", async () => {
    const device = await pairDevice(agent, scopes);
    const { x } = (await crypto.subtle.exportKey("jwk", device.key)) as JsonWebKey;
    const request = await requested(x);
    expect(await codeOf(device, "device.pair.approve", request)).toBe("PROXY_NOT_FOUND");
    const its = await apiKeyOf(agent, scopes, device);
    expect(await codeOf(its, "device.pair.approve", request)).toBe("PROXY_NOT_FOUND");
    await result(await apiKeyOf(agent, scopes), "device.pair.approve", request);
  });
});

describe("when the deletion of a key has been answered", () => {
  test("the key, its grants and a call that had read it a moment before are over", async () => {
    const holder = await apiKeyOf(agent, ["tasks:read"]);
    const early = await readEarly(holder);
    expect(await callLate(early)).toMatchObject({ ok: true });
    expect(await result(agent, "apikey/delete", { apiKeyId: holder.apiKeyId })).toMatchObject({
      apiKeyId: holder.apiKeyId,
      fenced: { sockets: 0, inFlight: 0 },
    });
    expect(await callLate(early)).toMatchObject({ ok: false });
    expect(await statusOf(holder)).toBe(401);
    expect(await rows("SELECT epoch FROM authority_epochs WHERE authority = ?1", `apikey:${holder.apiKeyId}`)).toEqual([
      { epoch: 1 },
    ]);
    expect(await rows("SELECT 1 FROM relationships WHERE subject_id = ?1", holder.serviceAccountId)).toEqual([]);
    expect(await codeOf(agent, "apikey/delete", { apiKeyId: holder.apiKeyId })).toBe("PROXY_NOT_FOUND");
  });

  test("by the key itself, it still hears the answer, and what follows in its batch is refused", async () => {
    const holder = await apiKeyOf(agent, ["admin", "tasks:read"]);
    const body = JSON.stringify([
      { jsonrpc: "2.0", id: 1, method: "apikey/delete", params: { apiKeyId: holder.apiKeyId } },
      { jsonrpc: "2.0", id: 2, method: "task/list", params: {} },
    ]);
    const headers = { Authorization: `Bearer ${holder.key}`, "Content-Type": "application/json" };
    const answer = await fetchWorker(new Request("https://proxy.example/rpc", { method: "POST", body, headers }));
    const [deleted, listed] = await answer.json<[{ result?: object }, { error?: { data: { code: string } } }]>();
    expect(deleted.result).toMatchObject({ apiKeyId: holder.apiKeyId });
    expect(listed.error?.data.code).toBe("PROXY_AUTH_REVOKED");
    expect(await statusOf(holder)).toBe(401);
  });
});

describe("the end of an agent", () => {
  test("is the end of its keys, those read a moment before included", async () => {
    for (const [path, extra] of [
      ["/v1/agents/rekey", { publicKey: (await newKey()).x }],
      ["/v1/agents/revoke", {}],
    ] as const) {
      const holder = await apiKeyOf(agent, ["tasks:read"]);
      const early = await readEarly(holder);
      const ended = await asOperator(path, { agentDid: agent.did, ...extra });
      expect(ended.status).toBe(200);
      expect(await callLate(early)).toMatchObject({ ok: false });
      expect(await statusOf(holder)).toBe(401);
      expect(await rows("SELECT 1 FROM api_keys WHERE agent_did = ?1", agent.did)).toEqual([]);
      expect(await rows("SELECT 1 FROM authority_epochs WHERE authority = ?1", `issued:${agent.did}`)).toHaveLength(1);
      expect(await rows("SELECT 1 FROM relationships WHERE subject_id = ?1", holder.serviceAccountId)).toEqual([]);
    }
    expect(await codeOf(operator, "apikey/create", { agentDid: agent.did, name: "k", scopes: ["relay"] })).toBe(
      "PROXY_NOT_FOUND",
    );
  });
});
