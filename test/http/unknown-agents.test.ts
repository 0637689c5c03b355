/** What a stranger hears of an agent that exists and of one that does not: the same, and nothing is left behind for it. */
import { listDurableObjectIds } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { type AgentDid, newDid } from "../../src/wire/did.ts";
import { signProof } from "../../src/wire/proof.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { hashOf, newDeviceKey } from "../support/gate-participants.ts";

const ORIGIN = "https://proxy.example";
const TIMES = 30;

const unregistered = (authority = "registry.sallyport.example"): AgentDid =>
  newDid(authority, "agent", newUlid(Date.now()));

/** An agent of the embedded registry, which has never called. */
async function registered(): Promise<AgentDid> {
  const did = unregistered();
  await env.DB.prepare(
    `INSERT INTO agents (agent_did, owner_did, tenant_id, name, framework, public_key, ait_ttl_seconds, created_at_ms)
     VALUES (?1, ?2, 'tenant', 'a', 'f', ?3, 60, 0)`,
  )
    .bind(did, newDid("registry.sallyport.example", "human", newUlid(Date.now())), did.slice(-26))
    .run();
  return did;
}

const fetchFrom = (address: string, path: string, init: RequestInit): Promise<Response> =>
  exports.default.fetch(
    new Request(`${ORIGIN}${path}`, { ...init, headers: { ...init.headers, "CF-Connecting-IP": address } }),
  );

type Ask = (did: AgentDid, address: string) => Promise<Response>;

async function signed(method: string, path: string, body: string): Promise<Record<string, string>> {
  const key = await newDeviceKey();
  const [timestamp, nonce] = [String(Math.floor(Date.now() / 1_000)), crypto.randomUUID()];
  const proof = { method, pathWithQuery: path, timestamp, nonce, bodySha256: await hashOf(body) };
  return {
    "X-Claw-Timestamp": timestamp,
    "X-Claw-Nonce": nonce,
    "X-Claw-Body-SHA256": proof.bodySha256,
    "X-Claw-Proof": await signProof(key.privateKey, proof),
  };
}

const RPC = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "task/list" });
const asks: Record<string, Ask> = {
  "a shared secret": (did, address) => {
    const headers = { Authorization: `Shared sps_${"x".repeat(43)}`, "X-Claw-Agent-Did": did };
    return fetchFrom(address, "/rpc", { method: "POST", body: RPC, headers });
  },
  "a device token": async (did, address) => {
    const headers = { Authorization: `Device spd_${"x".repeat(43)}`, "X-Claw-Agent-Did": did };
    const proof = await signed("POST", "/rpc", RPC);
    return fetchFrom(address, "/rpc", { method: "POST", body: RPC, headers: { ...headers, ...proof } });
  },
  "a shared secret for a socket": (did, address) => {
    const headers = { Authorization: `Shared sps_${"x".repeat(43)}`, "X-Claw-Agent-Did": did, Upgrade: "websocket" };
    return fetchFrom(address, "/relay/connect", { headers });
  },
  "a relay ticket": (did, address) => {
    const ticket = `spw_${"x".repeat(43)}.${encodeBase64Url(new TextEncoder().encode(did))}`;
    const headers = { "Sec-WebSocket-Protocol": `sallyport.ticket.${ticket}`, Upgrade: "websocket" };
    return fetchFrom(address, "/relay/connect", { headers });
  },
  "a claim": async (did, address) => {
    const body = JSON.stringify({ agentDid: did, deviceId: "d".repeat(22) });
    const headers = await signed("POST", "/v1/devices/claim", body);
    return fetchFrom(address, "/v1/devices/claim", { method: "POST", body, headers });
  },
};

/** Status, headers and body without what is of the one request. */
async function toldOf(response: Response): Promise<string> {
  const headers = [...response.headers].filter(([name]) => !["x-request-id", "retry-after"].includes(name));
  const body = (await response.text()).replaceAll(/"requestId":"[^"]+"/g, '"requestId":""');
  return JSON.stringify([response.status, headers, body.replaceAll(/"retryAfterMs":\d+/g, "")]);
}

let addresses = 0;

describe.each(Object.entries(asks))("thirty guesses with %s", (_what, ask) => {
  test("are answered alike for an agent that exists and for others, and wake nothing for those", async () => {
    const dids = [await registered(), unregistered(), unregistered("elsewhere.example")] as const;
    const answers: string[][] = [];
    for (const did of dids) {
      const address = `2001:db8:${(addresses += 1).toString(16)}::1`;
      const told: string[] = [];
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      for (let n = 0; n < TIMES; n++) told.push(await toldOf(await ask(did, address)));
      answers.push(told);
    }
    expect(answers[1]).toEqual(answers[0]);
    // Whose authority another DID is stands in it: it is refused, and need not be counted.
    expect(answers[2]?.[0]).toEqual(answers[0]?.[0]);
    const woken = new Set((await listDurableObjectIds(env.GATE)).map(String));
    expect(dids.map((did) => woken.has(env.GATE.idFromName(did).toString()))).toEqual([true, false, false]);
  });
});
