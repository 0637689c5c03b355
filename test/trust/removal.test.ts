import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import {
  pairConfirm,
  pairRemove,
  pairStart,
  trustList,
  trustMethods,
  trustRemove,
} from "../../src/rpc/methods/trust.ts";
import { retryPendingFences } from "../../src/trust/fences.ts";
import { listPendingFences, listPeers, lookUpTrust } from "../../src/trust/pairs.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { callBy, type House, newAgentDid, newHouse } from "./call-context.ts";

let house: House;
let alice: AgentDid;
let bob: AgentDid;

beforeEach(async () => {
  await env.DB.batch([env.DB.prepare("DELETE FROM pair_tickets"), env.DB.prepare("DELETE FROM trust_pairs")]);
  house = newHouse();
  [alice, bob] = [newAgentDid(), newAgentDid()];
});

const profile = (agentName: string) => ({ agentName, humanName: "Somebody" });

async function pair(initiator: AgentDid, responder: AgentDid): Promise<void> {
  const params = pairStart.params.parse({ initiatorProfile: profile("initiator") });
  const { ticket } = (await pairStart.handler(callBy(house, initiator), params)) as { ticket: string };
  await pairConfirm.handler(callBy(house, responder), { ticket, responderProfile: profile("responder") });
}

const remove = (me: AgentDid, peerAgentDid: AgentDid): Promise<unknown> =>
  pairRemove.handler(callBy(house, me), { peerAgentDid });

describe("removing trust", () => {
  test("ends it for both, and leaves a fence above every epoch it was judged by in both gates", async () => {
    await pair(alice, bob);
    expect(await remove(alice, bob)).toEqual({ removed: true });
    expect(await lookUpTrust(env.DB, bob, alice)).toEqual({ trusted: false, epoch: 2 });
    expect(house.fences).toEqual([
      { at: alice, peer: bob, epoch: 2, local: true },
      { at: bob, peer: alice, epoch: 2, local: false },
    ]);
    expect(await listPeers(env.DB, alice, { after: "", limit: 10 })).toEqual([]);
  });

  test("is answered with false where there is nothing to remove, and fences nobody", async () => {
    expect(await remove(alice, bob)).toEqual({ removed: false });
    expect(await remove(alice, alice)).toEqual({ removed: false });
    expect(house.fences).toEqual([]);
  });

  test("can be repeated: nothing changes but that the fences are laid again", async () => {
    await pair(alice, bob);
    await remove(alice, bob);
    expect(await remove(bob, alice)).toEqual({ removed: false });
    expect((await lookUpTrust(env.DB, alice, bob)).epoch).toBe(2);
    expect(house.fences.map(({ epoch }) => epoch)).toEqual([2, 2, 2, 2]);
  });

  test("is in the audit once: who ended it, and between whom", async () => {
    await pair(alice, bob);
    const both = { agentDid: bob, peerAgentDid: alice };
    expect(await trustRemove.handler(callBy(house, null), both)).toEqual({ removed: true });
    expect(await trustRemove.handler(callBy(house, null), both)).toEqual({ removed: false });
    expect(await remove(alice, bob)).toEqual({ removed: false });
    await pair(alice, bob);
    await remove(alice, bob);
    const { results } = await env.DB.prepare(
      "SELECT actor, subject, details FROM audit WHERE action = 'trust.remove' AND agent_did IN (?1, ?2) ORDER BY rowid",
    )
      .bind(alice, bob)
      .all();
    expect(results).toEqual([
      { actor: "operator", subject: `agent:${bob}`, details: JSON.stringify({ peerAgentDid: alice }) },
      { actor: `agent:${alice}`, subject: `agent:${alice}`, details: JSON.stringify({ peerAgentDid: bob }) },
    ]);
  });

  test("of twenty at the same time one removed it", async () => {
    await pair(alice, bob);
    const answers = await Promise.all(Array.from({ length: 20 }, () => remove(alice, bob)));
    expect(answers.filter((answer) => (answer as { removed: boolean }).removed)).toHaveLength(1);
    expect((await lookUpTrust(env.DB, alice, bob)).epoch).toBe(2);
  });

  test("a pairing after it is above the fence", async () => {
    await pair(alice, bob);
    await remove(alice, bob);
    await pair(bob, alice);
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: true, epoch: 3 });
  });

  test("does not answer while a gate is out of reach, and the fences stay owed until they stand", async () => {
    await pair(alice, bob);
    house.broken.add(bob);
    await expect(remove(alice, bob)).rejects.toMatchObject({ code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE" });
    expect((await lookUpTrust(env.DB, alice, bob)).trusted).toBe(false);
    const mine = async () =>
      (await listPendingFences(env.DB, 100)).filter((owed) => [owed.low, owed.high].includes(alice));
    expect(await mine()).toHaveLength(1);

    const deps = { db: env.DB, gates: house.gates, now: () => house.nowMs, log: house.log };
    expect((await retryPendingFences(deps)).failed).toBe(1);
    house.broken.clear();
    expect(await retryPendingFences(deps)).toEqual({ settled: 1, failed: 0 });
    expect(house.fences).toContainEqual({ at: bob, peer: alice, epoch: 2, local: false });
    expect(await mine()).toEqual([]);
  });

  test("a removal under an authority that ended meanwhile is undone whole", async () => {
    await pair(alice, bob);
    await env.DB.prepare("INSERT INTO authority_epochs (authority, epoch) VALUES (?1, 1)").bind(`agent:${alice}`).run();
    await expect(remove(alice, bob)).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
    expect((await lookUpTrust(env.DB, alice, bob)).trusted).toBe(true);
    expect(house.fences).toEqual([]);
  });
});

describe("the operator", () => {
  test("removes the trust of any two, with fences in both gates", async () => {
    await pair(alice, bob);
    const answer = await trustRemove.handler(callBy(house, null), { agentDid: bob, peerAgentDid: alice });
    expect(answer).toEqual({ removed: true });
    expect(house.fences.map(({ at }) => at).toSorted()).toEqual([alice, bob].toSorted());
  });

  test("lists every trusted pair once, page by page", async () => {
    const peers = Array.from({ length: 5 }, newAgentDid);
    for (const peer of peers) await pair(alice, peer);
    await remove(alice, peers[0] as AgentDid);
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const params = trustList.params.parse(cursor === undefined ? { limit: 2 } : { limit: 2, cursor });
      const page = (await trustList.handler(callBy(house, null), params)) as {
        pairs: { agentDid: AgentDid; peerAgentDid: AgentDid }[];
        nextCursor?: string;
      };
      expect(page.pairs.length).toBeLessThanOrEqual(2);
      for (const { agentDid, peerAgentDid } of page.pairs) {
        if (agentDid === alice) seen.push(peerAgentDid);
        if (peerAgentDid === alice) seen.push(agentDid);
      }
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(seen.toSorted()).toEqual(peers.slice(1).toSorted());
  });
});

test("peers come in pages after the last one seen", async () => {
  const peers = Array.from({ length: 4 }, newAgentDid).toSorted();
  for (const peer of peers) await pair(alice, peer);
  const first = await listPeers(env.DB, alice, { after: "", limit: 3 });
  expect(first.map(({ agentDid }) => agentDid)).toEqual(peers.slice(0, 3));
  const rest = await listPeers(env.DB, alice, { after: first.at(-1)?.agentDid ?? "", limit: 3 });
  expect(rest.map(({ agentDid }) => agentDid)).toEqual(peers.slice(3));
});

test("every method of trust is for agents alone behind a route, or for the operator alone by name", () => {
  for (const { name, surface, permission } of trustMethods) {
    expect([surface, permission.callers], name).toEqual(
      name.startsWith("pair.") ? ["http", ["agent"]] : ["rpc", ["operator"]],
    );
  }
});
