import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test, vi } from "vitest";
import {
  pairConfirm,
  pairRemove,
  pairStart,
  trustList,
  trustMethods,
  trustRemove,
} from "../../src/rpc/methods/trust.ts";
import { retryPendingFences } from "../../src/trust/fences.ts";
import { FENCES_GRACE_MS, listPendingFences, listPeers, lookUpTrust } from "../../src/trust/pairs.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { callBy, type CallHarness, newAgentDid, newCallHarness, ROUND } from "./call-context.ts";

let harness: CallHarness;
let alice: AgentDid;
let bob: AgentDid;

beforeEach(async () => {
  await env.DB.batch([env.DB.prepare("DELETE FROM pair_tickets"), env.DB.prepare("DELETE FROM trust_pairs")]);
  harness = newCallHarness();
  [alice, bob] = [newAgentDid(), newAgentDid()];
});

const profile = (agentName: string) => ({ agentName, humanName: "Somebody" });

async function pair(initiator: AgentDid, responder: AgentDid): Promise<void> {
  const params = pairStart.params.parse({ initiatorProfile: profile("initiator") });
  const { ticket } = (await pairStart.handler(callBy(harness, initiator), params)) as { ticket: string };
  await pairConfirm.handler(callBy(harness, responder), { ticket, responderProfile: profile("responder") });
}

const remove = (me: AgentDid, peerAgentDid: AgentDid): Promise<unknown> =>
  pairRemove.handler(callBy(harness, me), { peerAgentDid });

describe("removing trust", () => {
  test("ends it for both, and leaves a fence above every epoch it was judged by in both gates", async () => {
    await pair(alice, bob);
    expect(await remove(alice, bob)).toEqual({ removed: true });
    expect(await lookUpTrust(env.DB, bob, alice)).toEqual({ trusted: false, epoch: 2 });
    expect(harness.fences).toEqual([
      { at: alice, peer: bob, epoch: 2, local: true },
      { at: bob, peer: alice, epoch: 2, local: false },
    ]);
    expect(await listPeers(env.DB, alice, { after: "", limit: 10 })).toEqual([]);
  });

  test("is answered with false where there is nothing to remove, and fences nobody", async () => {
    expect(await remove(alice, bob)).toEqual({ removed: false });
    expect(await remove(alice, alice)).toEqual({ removed: false });
    expect(harness.fences).toEqual([]);
  });

  test("can be repeated: nothing changes but that the fences are placed again", async () => {
    await pair(alice, bob);
    await remove(alice, bob);
    expect(await remove(bob, alice)).toEqual({ removed: false });
    expect((await lookUpTrust(env.DB, alice, bob)).epoch).toBe(2);
    expect(harness.fences.map(({ epoch }) => epoch)).toEqual([2, 2, 2, 2]);
  });

  test("is in the audit once: who ended it, and between whom", async () => {
    await pair(alice, bob);
    const both = { agentDid: bob, peerAgentDid: alice };
    expect(await trustRemove.handler(callBy(harness, null), both)).toEqual({ removed: true });
    expect(await trustRemove.handler(callBy(harness, null), both)).toEqual({ removed: false });
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

  test("does not answer while a gate is out of reach, and the fences stay pending until they stand", async () => {
    await pair(alice, bob);
    harness.broken.add(bob);
    await expect(remove(alice, bob)).rejects.toMatchObject({ code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE" });
    expect((await lookUpTrust(env.DB, alice, bob)).trusted).toBe(false);
    const mine = async () =>
      (await listPendingFences(env.DB, Number.MAX_SAFE_INTEGER, 100)).filter(({ low, high }) =>
        [low, high].includes(alice),
      );
    expect(await mine()).toHaveLength(1);

    const deps = { db: env.DB, gates: harness.gates, now: () => harness.nowMs, log: harness.log };
    expect(await retryPendingFences(deps, ROUND), "the caller places them first").toEqual({
      done: 0,
      failed: 0,
      left: 0,
    });
    harness.nowMs += FENCES_GRACE_MS;
    expect(await retryPendingFences(deps, ROUND)).toEqual({ done: 0, failed: 1, left: 0 });
    harness.broken.clear();
    expect(await retryPendingFences(deps, ROUND), "backs off").toEqual({ done: 0, failed: 0, left: 0 });
    harness.nowMs += 20_000;
    expect(await retryPendingFences(deps, ROUND)).toEqual({ done: 1, failed: 0, left: 0 });
    expect(harness.fences).toContainEqual({ at: bob, peer: alice, epoch: 2, local: false });
    expect(await mine()).toEqual([]);
  });

  test("a removal under an authority that ended meanwhile is undone whole", async () => {
    await pair(alice, bob);
    await env.DB.prepare("INSERT INTO authority_epochs (authority, epoch) VALUES (?1, 1)").bind(`agent:${alice}`).run();
    await expect(remove(alice, bob)).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
    expect((await lookUpTrust(env.DB, alice, bob)).trusted).toBe(true);
    expect(harness.fences).toEqual([]);
  });
});

describe("the fences of one gate that hangs", () => {
  /** Pairs whose trust was removed, with their fences pending and due; made in the table, since every call would place them. */
  const removedPairs = (peers: readonly AgentDid[], gate: AgentDid, removedAtMs: number) =>
    env.DB.batch(
      peers.map((peer) =>
        env.DB.prepare(
          `INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms, removed_at_ms, fences_owed,
             fences_due_at_ms) VALUES (MIN(?1, ?2), MAX(?1, ?2), 2, '{}', '{}', 1, ?3, 1, ?3)`,
        ).bind(gate, peer, removedAtMs),
      ),
    );
  const many = (count: number): AgentDid[] => Array.from({ length: count }, newAgentDid);

  test("do not keep those of others waiting: theirs stand within two rounds, and the gate is asked a few times in each", async () => {
    await removedPairs(many(150), alice, 1);
    const others = many(20);
    await removedPairs(others, bob, 2);
    const asked = { hanging: 0 };
    const gates = {
      of: (at: AgentDid) =>
        at === alice
          ? {
              ...harness.gates.of(at),
              fencePeer: () => {
                asked.hanging += 1;
                return new Promise<void>(() => {});
              },
            }
          : harness.gates.of(at),
    };
    const deps = { db: env.DB, gates, now: () => harness.nowMs, log: harness.log };
    const limits = { ...ROUND, calls: 200, callTimeoutMs: 50 };
    const first = await retryPendingFences(deps, limits);
    const second = await retryPendingFences(deps, limits);
    expect(first).toEqual({ done: 0, failed: 100, left: 1 });
    expect(second).toEqual({ done: 20, failed: 50, left: 0 });
    expect(new Set(harness.fences.filter(({ peer }) => peer === bob).map(({ at }) => at))).toEqual(new Set(others));
    expect(asked.hanging).toBeLessThanOrEqual(2 * ROUND.parallel);
  });

  test("are placed later and later while it goes on, and at once in its turn when it is back", async () => {
    await removedPairs([bob], alice, 1);
    harness.broken.add(alice);
    const deps = { db: env.DB, gates: harness.gates, now: () => harness.nowMs, log: harness.log };
    const waits: number[] = [];
    for (let failure = 0; failure < 5; failure += 1) {
      // oxlint-disable-next-line no-await-in-loop -- each wait follows from the one before
      expect(await retryPendingFences(deps, ROUND)).toEqual({ done: 0, failed: 1, left: 0 });
      // oxlint-disable-next-line no-await-in-loop
      const dueAtMs = await env.DB.prepare("SELECT fences_due_at_ms AS due FROM trust_pairs").first<number>("due");
      waits.push((dueAtMs ?? 0) - harness.nowMs);
      harness.nowMs = dueAtMs ?? 0;
    }
    for (const [at, ms] of waits.entries()) expect(Math.abs(ms / (15_000 * 2 ** at) - 1)).toBeLessThanOrEqual(0.21);
    harness.broken.clear();
    expect(await retryPendingFences(deps, ROUND)).toEqual({ done: 1, failed: 0, left: 0 });
  });

  test("cost a removal no more than its deadline, and it is answered as pending", async () => {
    await pair(alice, bob);
    const hanging = callBy(harness, alice);
    let asked = 0;
    const gates = {
      of: () => ({
        fencePeer: () => {
          asked += 1;
          return new Promise(() => {});
        },
      }),
    };
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const removing = pairRemove
        .handler({ ...hanging, gates: gates as never }, { peerAgentDid: bob })
        .catch((error: unknown) => error);
      while (asked === 0) await new Promise((resolve) => setImmediate(resolve));
      await vi.advanceTimersByTimeAsync(5_000);
      expect(await removing).toMatchObject({ code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE" });
    } finally {
      vi.useRealTimers();
    }
    expect((await lookUpTrust(env.DB, alice, bob)).trusted).toBe(false);
    expect(await listPendingFences(env.DB, Number.MAX_SAFE_INTEGER, 10)).toHaveLength(1);
  });
});

describe("the operator", () => {
  test("removes the trust of any two, with fences in both gates", async () => {
    await pair(alice, bob);
    const answer = await trustRemove.handler(callBy(harness, null), { agentDid: bob, peerAgentDid: alice });
    expect(answer).toEqual({ removed: true });
    expect(harness.fences.map(({ at }) => at).toSorted()).toEqual([alice, bob].toSorted());
  });

  test("lists every trusted pair once, page by page", async () => {
    const peers = Array.from({ length: 5 }, newAgentDid);
    for (const peer of peers) await pair(alice, peer);
    await remove(alice, peers[0] as AgentDid);
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const params = trustList.params.parse(cursor === undefined ? { limit: 2 } : { limit: 2, cursor });
      const page = (await trustList.handler(callBy(harness, null), params)) as {
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
