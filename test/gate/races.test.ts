/** What happens to one thing in a gate while another is in progress: upgrades among themselves, sends and a re-key, faults of the disk and a repeat. */
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import * as z from "zod/mini";
import type { GateLocal } from "../../src/call/gate.ts";
import { UPGRADE_HEADER } from "../../src/gate/protocol/upgrade.ts";
import { defineMethod } from "../../src/rpc/method.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { call, withMethods } from "../support/gate-participants.ts";
import {
  admissionOf,
  alarmOf,
  crashGate,
  eventually,
  gateStub,
  listen,
  type Listener,
  newAgentDid,
  queuedMessage,
  rows,
  send,
  sent,
  START_MS,
  stopClock,
} from "../support/gate.ts";

const DAY_MS = 86_400_000;

/** What the operator's call `test.do` does with the gate that it runs in. */
let deed: (gate: GateLocal) => unknown = () => undefined;

beforeEach(async () => {
  stopClock();
  const anything = {
    name: "test.do",
    surface: "rpc",
    permission: { callers: ["operator"], roles: ["owner"], scope: null },
    params: z.object({}),
    result: z.object({}),
  } as const;
  await withMethods([
    defineMethod({
      ...anything,
      handler: async ({ gate }) => {
        if (gate !== null) await deed(gate);
        return {};
      },
    }),
  ]);
});
afterEach(() => void vi.useRealTimers());

const closeReasons = async (listeners: readonly Listener[]): Promise<(string | null)[]> => {
  const nothing = new Promise<null>((resolve) => setTimeout(resolve, 100, null));
  return Promise.all(listeners.map(({ closed }) => Promise.race([closed.then(({ reason }) => reason), nothing])));
};

/** Makes each write to a table of a gate fail, until the test mends it. */
async function breakTable(did: AgentDid, table: string, event: "INSERT" | "UPDATE"): Promise<() => Promise<void>> {
  const exec = (statement: string) =>
    runInDurableObject(gateStub(did), (_gate, { storage }) => void storage.sql.exec(statement));
  await exec(`CREATE TRIGGER broken BEFORE ${event} ON ${table} BEGIN SELECT RAISE(ABORT, 'the disk has failed'); END`);
  return () => exec("DROP TRIGGER broken");
}

describe("sockets of one agent that are opened at once", () => {
  test("leave one open, whichever comes last", async () => {
    const did = newAgentDid();
    const first = await listen(did);
    const [, , ...rest] = await Promise.all([
      send(did, newAgentDid(), 1),
      send(did, newAgentDid(), 2),
      listen(did),
      listen(did),
      listen(did),
    ]);
    const reasons = await closeReasons([first, ...rest]);
    expect(reasons.filter((reason) => reason === null)).toHaveLength(1);
    expect(new Set(reasons)).toEqual(new Set(["superseded", null]));
    const deliveryId = await sent(newAgentDid(), did, { hello: 1 });
    await eventually(async () =>
      expect(await rows(did, "SELECT state FROM inbound WHERE delivery_id = ?", deliveryId)).toEqual([{ state: 1 }]),
    );
  });
});

describe("a relay ticket that was given to no caller", () => {
  test("wakes nothing that was asleep", async () => {
    const did = newAgentDid();
    const relay = await listen(did);
    relay.socket.close(1000);
    await eventually(async () => {
      vi.setSystemTime(Date.now() + DAY_MS);
      await runDurableObjectAlarm(gateStub(did));
      expect(await alarmOf(did)).toBeNull();
    });
    const junk = { requestId: "a-request", origin: null, ticketSha256: "A".repeat(43), protocol: "sallyport.ticket.x" };
    const answer = await gateStub(did).fetch("https://gate/relay", {
      headers: { Upgrade: "websocket", [UPGRADE_HEADER]: JSON.stringify(junk) },
    });
    expect(answer.status).toBe(401);
    expect(await alarmOf(did)).toBeNull();
  });
});

describe("a message to an agent that is being re-keyed", () => {
  const rekey =
    (commit: () => Promise<[]>) =>
    (gate: GateLocal): Promise<unknown> =>
      gate.endAgent({ reason: "rekeyed", keepJti: "the next", commit });

  test("waits with its sender, and is taken afterwards", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    await send(bob, alice, "so that there is a gate");
    let isCommitted = false;
    deed = rekey(async () => {
      // oxlint-disable-next-line no-await-in-loop -- looked at until it is so: a promise of the test's does not cross into a gate
      while (!isCommitted) await new Promise((resolve) => setTimeout(resolve, 5));
      return [];
    });
    const rekeyed = call(bob, "test.do");
    await eventually(async () =>
      expect(await rows(bob, "SELECT value FROM meta WHERE name = 'agent_ended'")).toEqual([{ value: "rekeyed" }]),
    );
    const one = queuedMessage();
    expect(await gateStub(bob).receive(alice, [one])).toEqual({ taken: 0 });
    isCommitted = true;
    expect(await rekeyed).toMatchObject({ ok: true });
    expect(await gateStub(bob).receive(alice, [one])).toEqual({ taken: 1 });
    expect(await rows(bob, "SELECT state FROM inbound")).toEqual([{ state: 0 }]);
  });

  test("waits also where it is unknown what became of the re-key, over an eviction", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    await send(bob, alice, "so that there is a gate");
    deed = rekey(() => Promise.reject(new Error("D1_ERROR: Network connection lost.")));
    expect(await call(bob, "test.do")).toMatchObject({ ok: false });
    await crashGate(bob);
    expect(await gateStub(bob).receive(alice, [queuedMessage()])).toEqual({ taken: 0 });
    expect(await rows(bob, "SELECT state FROM inbound")).toEqual([]);
  });

  test("is dead once the agent is revoked, over an eviction", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    await send(bob, alice, "so that there is a gate");
    deed = (gate) => gate.endAgent({ reason: "revoked", commit: async () => [] });
    expect(await call(bob, "test.do")).toMatchObject({ ok: true });
    await crashGate(bob);
    expect(await gateStub(bob).receive(alice, [queuedMessage()])).toEqual({ taken: 1 });
    expect(await rows(bob, "SELECT state, reason FROM inbound")).toEqual([{ state: 2, reason: "recipient revoked" }]);
  });
});

describe("an end that the disk did not take", () => {
  test("of a peer's trust holds when it is repeated", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    await listen(bob, "nothing").then(({ socket }) => socket.close(1000));
    await gateStub(bob).receive(alice, [queuedMessage({ envelope: envelope(alice, 1) })]);
    const mend = await breakTable(bob, "inbound", "UPDATE");
    expect(await outcomeOf(() => fence(bob, alice))).toBe("failed");
    await mend();
    await fence(bob, alice);
    await crashGate(bob);
    expect(await rows(bob, "SELECT trust_epoch FROM peer_fences")).toEqual([{ trust_epoch: 2 }]);
    await gateStub(bob).receive(alice, [queuedMessage({ envelope: envelope(alice, 1) })]);
    expect(await rows(bob, "SELECT DISTINCT reason FROM inbound")).toEqual([{ reason: "trust removed" }]);
  });

  test("of an identity token holds when it is repeated", async () => {
    const did = newAgentDid();
    const admission = admissionOf(did);
    await send(did, newAgentDid(), 1, { admission });
    const end = () =>
      gateStub(did).endTokens([{ jti: admission.principal.jti, expMs: START_MS + 40 * DAY_MS }], "revoked");
    const mend = await breakTable(did, "meta", "INSERT");
    expect(await outcomeOf(end)).toBe("failed");
    await mend();
    await end();
    await crashGate(did);
    const again = { ...admissionOf(did), principal: admission.principal };
    expect(await send(did, newAgentDid(), 2, { admission: again })).toMatchObject({
      ok: false,
      refusal: { reason: "gate-agent-revoked" },
    });
  });

  /** Awaited on the spot: an RPC promise that is handed on counts as one that is not handled. */
  async function outcomeOf(work: () => Promise<unknown>): Promise<string> {
    try {
      await work();
      return "done";
    } catch {
      return "failed";
    }
  }

  // The object starts anew meanwhile, which breaks the stub that has seen it.
  const fence = (did: AgentDid, peer: AgentDid) => env.GATE.getByName(did).fencePeer(peer, 2);
  const envelope = (from: AgentDid, trustEpoch: number) => JSON.stringify({ fromAgentDid: from, trustEpoch });
});

describe("a full outbox", () => {
  const fill = async (from: AgentDid, to: AgentDid): Promise<void> => {
    deed = (gate) => {
      for (;;) gate.send(to, { fromAgentDid: null, payload: "1" });
    };
    expect(await call(from, "test.do")).toMatchObject({
      ok: false,
      code: "PROXY_RELAY_QUEUE_FULL",
    });
  };

  test("is reported to a method as what it is, to a send only when nothing else refuses it", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    const idempotency = { key: "once", bodySha256: "a hash" };
    const deliveryId = await sent(alice, bob, { hello: 1 }, { idempotency });
    const admission = admissionOf(alice);
    const used = { ...admission, nonce: crypto.randomUUID() };
    await send(alice, bob, 2, { admission: used });
    await fill(alice, bob);
    const refused = async (over: Parameters<typeof send>[3]): Promise<unknown> => {
      const reply = await send(alice, bob, 3, over);
      return reply.ok ? reply.deliveryId : reply.refusal.reason;
    };
    const expired = { ...admission, principal: { ...admission.principal, expMs: START_MS - 1 } };
    expect([
      await refused({}),
      await refused({ admission: used }),
      await refused({ admission: expired }),
      await refused({ idempotency }),
    ]).toEqual(["gate-outbox-full", "gate-nonce-replayed", "gate-agent-revoked", deliveryId]);
  });

  test("takes the very request later that it has refused: its nonce was not used up", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    await send(alice, bob, 1);
    await fill(alice, bob);
    const admission = admissionOf(alice);
    expect(await send(alice, bob, 2, { admission })).toMatchObject({ refusal: { reason: "gate-outbox-full" } });
    await eventually(async () => {
      vi.setSystemTime(Date.now() + 1_000);
      await runDurableObjectAlarm(gateStub(alice));
      expect(await send(alice, bob, 2, { admission })).toMatchObject({ ok: true });
    });
  });
});

describe("a pairing that is newer than what a gate remembers", () => {
  test("lets in what is enqueued over a socket", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    const [low, high] = [alice, bob].toSorted();
    const pair = (epoch: number) =>
      env.DB.prepare(
        "INSERT OR REPLACE INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms) VALUES (?1, ?2, ?3, '{}', '{}', ?4)",
      )
        .bind(low, high, epoch, START_MS)
        .run();
    await pair(1);
    const relay = await listen(alice);
    onTestFinished(() => relay.socket.close(1000));
    const enqueued = async (): Promise<unknown> => {
      const before = relay.frames.length;
      relay.say({ type: "enqueue", toAgentDid: bob, payload: { hello: 1 } });
      return eventually(() => {
        const ack = relay.frames.slice(before).find(({ type }) => type === "enqueue_ack");
        expect(ack).toBeDefined();
        return ack?.["accepted"] === true ? "accepted" : ack?.["reason"];
      });
    };
    expect(await enqueued()).toBe("accepted");
    await gateStub(alice).fencePeer(bob, 2);
    expect(await enqueued()).toBe("PROXY_AUTH_FORBIDDEN");
    await pair(2);
    expect(await enqueued()).toBe("accepted");
  });
});
