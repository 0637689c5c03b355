import { describe, expect, test } from "vitest";
import { setUp } from "../agent-under-test.ts";
import { isProven, PEER_DID, type Route } from "../fake-gate.ts";

const GROUP_ID = "grp_01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B";

const answering =
  (result: unknown): Route =>
  ({ body }) => ({ json: { jsonrpc: "2.0", id: (JSON.parse(body) as { id: unknown }).id, result } });

describe("a send in a group", () => {
  test("to all names the group alone, under the proof, and gives a message for each member", async () => {
    const deliveries = [{ agentDid: PEER_DID, deliveryId: "d_1" }];
    const sent = { accepted: true, groupId: GROUP_ID, deliveries };
    const { agent, gate, keys } = await setUp({ "POST /hooks/agent": () => ({ status: 202, json: sent }) });
    expect(await agent.sendToGroup({ groupId: GROUP_ID, payload: { a: 1 }, idempotencyKey: "k" })).toEqual(sent);
    const [request] = gate.to("/hooks/agent");
    if (request === undefined) throw new Error("nothing was sent");
    expect(request.headers.get("X-Claw-Group-Id")).toBe(GROUP_ID);
    expect(request.headers.has("X-Claw-Recipient-Agent-Did")).toBe(false);
    expect(request.headers.get("Idempotency-Key")).toBe("k");
    expect(await isProven(request, keys.publicKey)).toBe(true);
  });

  test("to one names both", async () => {
    const { agent, gate } = await setUp({});
    await agent.send({ to: PEER_DID, groupId: GROUP_ID, payload: 1 });
    const { headers } = gate.to("/hooks/agent")[0] ?? { headers: new Headers() };
    expect([headers.get("X-Claw-Group-Id"), headers.get("X-Claw-Recipient-Agent-Did")]).toEqual([GROUP_ID, PEER_DID]);
  });

  test("is not sent where the group's name could be no header", async () => {
    const { agent, gate } = await setUp({});
    await expect(agent.sendToGroup({ groupId: "a b\n", payload: 1 })).rejects.toMatchObject({ argument: "groupId" });
    expect(gate.seen).toEqual([]);
  });
});

test("the methods of groups ask for what they say, and give what the server answers", async () => {
  const member = { agentDid: PEER_DID, role: "member", since: 1 };
  const results: Record<string, unknown> = {
    "group/create": { groupId: GROUP_ID, name: "team" },
    "group/invite": { token: "spg_t", expiresAtMs: 2 },
    "group/join": { groupId: GROUP_ID, name: "team", members: [member] },
    "group/list": { groups: [{ groupId: GROUP_ID, name: "team", role: "admin", since: 1, members: 2 }] },
    "group/get": { groupId: GROUP_ID, name: "team", role: "admin", members: [member] },
    "group/remove": { removed: false },
    "group/leave": { left: true },
    "group/rename": { groupId: GROUP_ID, name: "ours" },
    "group/delete": { deleted: true },
  };
  const { agent, gate } = await setUp({
    "POST /rpc": (request) => answering(results[(JSON.parse(request.body) as { method: string }).method])(request),
  });
  const { groups } = agent;
  expect(await groups.create("team")).toEqual({ groupId: GROUP_ID, name: "team" });
  expect(await groups.invite({ groupId: GROUP_ID, role: "admin", ttlSeconds: 60 })).toEqual(results["group/invite"]);
  expect(await groups.join("spg_t")).toEqual(results["group/join"]);
  expect(await groups.list()).toEqual([{ groupId: GROUP_ID, name: "team", role: "admin", since: 1, members: 2 }]);
  expect(await groups.get(GROUP_ID)).toEqual(results["group/get"]);
  expect(await groups.remove(GROUP_ID, PEER_DID)).toBe(false);
  await groups.rename(GROUP_ID, "ours");
  await groups.leave(GROUP_ID);
  await groups.delete(GROUP_ID);
  const asked = gate.to("/rpc").map(({ body }) => JSON.parse(body) as { method: string; params: unknown });
  expect(asked.map(({ method, params }) => [method, params])).toEqual([
    ["group/create", { name: "team" }],
    ["group/invite", { groupId: GROUP_ID, role: "admin", ttlSeconds: 60 }],
    ["group/join", { token: "spg_t" }],
    ["group/list", {}],
    ["group/get", { groupId: GROUP_ID }],
    ["group/remove", { groupId: GROUP_ID, agentDid: PEER_DID }],
    ["group/rename", { groupId: GROUP_ID, name: "ours" }],
    ["group/leave", { groupId: GROUP_ID }],
    ["group/delete", { groupId: GROUP_ID }],
  ]);
});
