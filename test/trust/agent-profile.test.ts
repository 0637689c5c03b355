/** Who an agent is, for those who know it (contract §3), over the whole Worker. */
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Agent,
  authorization,
  type Caller,
  fetchWorker,
  operator,
  operatorWith,
  pairDevice,
  register,
  result,
} from "../support/world.ts";

let alice: Agent;
let bob: Agent;
let eve: Agent;

async function ask(by: Caller, did: string): Promise<{ status: number; body: Record<string, unknown> }> {
  const path = `/v1/agents/profile?did=${encodeURIComponent(did)}`;
  const headers = await authorization(by, "", { method: "GET", path });
  const answer = await fetchWorker(new Request(`https://proxy.example${path}`, { headers }));
  return { status: answer.status, body: await answer.json() };
}
async function post(by: Agent, path: string, what: object): Promise<Record<string, unknown>> {
  const body = JSON.stringify(what);
  const headers = await authorization(by, body, { method: "POST", path });
  const answer = await fetchWorker(new Request(`https://proxy.example${path}`, { method: "POST", body, headers }));
  return answer.json();
}
async function pair(initiator: Agent, responder: Agent): Promise<void> {
  const { ticket } = await post(initiator, "/pair/start", { initiatorProfile: { agentName: "a", humanName: "Ann" } });
  await post(responder, "/pair/confirm", { ticket, responderProfile: { agentName: "b", humanName: "Bob" } });
}

beforeAll(async () => {
  alice = await register({ name: "scheduler", framework: "openclaw" });
  bob = await register({ name: "calendar" });
  eve = await register({ name: "eve" });
});

describe("GET /v1/agents/profile", () => {
  test("tells an agent of itself and an operator of everybody, and who may only read numbers nothing", async () => {
    const own = await ask(alice, alice.did);
    expect(own).toEqual({
      status: 200,
      body: { agentDid: alice.did, name: "scheduler", framework: "openclaw", since: expect.any(Number) as number },
    });
    expect(await ask(operator, alice.did)).toEqual(own);
    expect(await ask(await operatorWith("viewer", "reader"), alice.did)).toEqual(own);
    expect((await ask(await operatorWith("metrics", "scraper"), alice.did)).status).toBe(403);
    expect((await ask(await operatorWith("registrar", "porter"), alice.did)).status).toBe(403);
    for (const bad of ["nobody", "", alice.ownerDid, `${alice.did}\u0000`, `did:cdi:${"a".repeat(2_000)}`])
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await ask(alice, bad), bad).toMatchObject({ status: 400, body: { code: "PROXY_BAD_REQUEST" } });
  });

  test("tells peers of each other, by the name of the registry and the person that was named at the pairing, until they part", async () => {
    const stranger = await ask(bob, alice.did);
    expect(stranger).toMatchObject({ status: 404, body: { code: "PROXY_NOT_FOUND" } });
    await pair(alice, bob);
    expect((await ask(bob, alice.did)).body).toMatchObject({ name: "scheduler", ownerName: "Ann" });
    expect((await ask(alice, bob.did)).body).toMatchObject({ name: "calendar", ownerName: "Bob" });
    expect((await ask(eve, alice.did)).status).toBe(404);
    await post(alice, "/pair/remove", { peerAgentDid: bob.did });
    expect((await ask(bob, alice.did)).status).toBe(404);
  });

  test("tells fellows of a group of each other, until one has left", async () => {
    const { groupId } = await result(eve, "group/create", { name: "g" });
    const { token } = await result(eve, "group/invite", { groupId });
    await result(bob, "group/join", { token });
    expect((await ask(eve, bob.did)).body).toMatchObject({ name: "calendar" });
    expect((await ask(bob, eve.did)).body).not.toHaveProperty("ownerName");
    expect((await ask(eve, alice.did)).status).toBe(404);
    await result(bob, "group/leave", { groupId });
    expect((await ask(eve, bob.did)).status).toBe(404);
  });

  test("is no device's", async () => {
    const device = await pairDevice(alice, ["relay", "send", "admin"]);
    expect((await ask(device, alice.did)).status).toBe(401);
  });
});
