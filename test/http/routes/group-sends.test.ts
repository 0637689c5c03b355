/** Sends in a group, by the hook and over the socket: membership of both stands for pairing, and one send reaches everybody. */
import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import { runtimeOf } from "../../../src/runtime.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { newGroupId } from "../../../src/wire/group-id.ts";
import { newUlid } from "../../../src/wire/ulid.ts";
import { crashGate, eventually, type Frame, gateStub, listen, rows as rowsOf } from "../../support/gate.ts";
import { parseOpenMetrics, valueOf } from "../../telemetry/open-metrics-parser.ts";
import { type Agent, authorization, fetchWorker, register, result } from "../../support/world.ts";

type Delivery = { agentDid: string; deliveryId: string };
type Answer = { status: number; body: Record<string, unknown> & { deliveries?: Delivery[] } };

let alice: Agent;
let bob: Agent;
let carol: Agent;
let dave: Agent;
let groupId: string;

beforeEach(async () => {
  [alice, bob, carol, dave] = [await register(), await register(), await register(), await register()];
  groupId = (await result(alice, "group/create", { name: "team" }))["groupId"] as string;
  for (const member of [bob, carol]) {
    // oxlint-disable-next-line no-await-in-loop -- in this order
    await join(member);
  }
});

async function join(member: Agent): Promise<void> {
  const { token } = (await result(alice, "group/invite", { groupId })) as { token: string };
  await result(member, "group/join", { token });
}

async function post(from: Agent, headers: Record<string, string>, payload: unknown = { n: 1 }): Promise<Answer> {
  const body = JSON.stringify(payload);
  const signed = await authorization(from, body, { method: "POST", path: "/hooks/agent" });
  const answer = await fetchWorker(
    new Request("https://proxy.example/hooks/agent", { method: "POST", body, headers: { ...signed, ...headers } }),
  );
  return { status: answer.status, body: await answer.json() };
}

const inGroup = (to?: Agent): Record<string, string> => ({
  "X-Claw-Group-Id": groupId,
  ...(to === undefined ? {} : { "X-Claw-Recipient-Agent-Did": to.did }),
});

/** Whether somebody not paired, and not in the group, hears this. */
const isRefused = ({ status, body }: Answer): boolean => status === 403 && body["code"] === "PROXY_AUTH_FORBIDDEN";

const inbox = async (agent: Agent): Promise<Frame[]> => {
  const listener = await listen(agent.did as AgentDid);
  await new Promise((resolve) => setTimeout(resolve, 100));
  listener.socket.close();
  return listener.deliveries();
};
describe("a send to one of a group", () => {
  test("needs no pairing, in either direction, and says which group it was sent in", async () => {
    expect((await post(alice, { "X-Claw-Recipient-Agent-Did": bob.did })).status).toBe(403);
    const relay = await listen(bob.did as AgentDid);
    expect(await post(alice, inGroup(bob))).toMatchObject({ status: 202, body: { accepted: true } });
    await eventually(() => expect(relay.deliveries()).toHaveLength(1));
    expect(relay.deliveries()[0]).toMatchObject({ fromAgentDid: alice.did, groupId, payload: { n: 1 } });
    expect(relay.texts.join("")).not.toContain("Epoch");
    expect((await post(bob, inGroup(carol))).status).toBe(202);
    expect((await post(bob, inGroup(alice))).status).toBe(202);
  });

  test("is refused alike where there is no such group, or sender or recipient is not in it", async () => {
    const unknown = newGroupId(Date.now());
    const answers = [
      await post(dave, inGroup(alice)),
      await post(dave, { ...inGroup(alice), "X-Claw-Group-Id": unknown }),
      await post(alice, inGroup(dave)),
      await post(dave, inGroup()),
      await post(dave, { "X-Claw-Group-Id": unknown }),
    ];
    expect(answers.map(isRefused)).toEqual([true, true, true, true, true]);
    const seen = answers.map(({ body }) => JSON.stringify({ ...body, requestId: "" }));
    expect(new Set(seen).size).toBe(1);
  });

  test.each(["", "grp_", "team", "grp_01k00000000000000000000000", `grp_${"I".repeat(26)}`])(
    "is refused where the group is %j, with or without a recipient",
    async (text) => {
      for (const to of [{}, { "X-Claw-Recipient-Agent-Did": bob.did }]) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const { status, body } = await post(alice, { "X-Claw-Group-Id": text, ...to });
        expect([status, body["code"]]).toEqual([400, "PROXY_BAD_REQUEST"]);
      }
    },
  );
});

describe("a send to all of a group", () => {
  test("is one message to every other member, each with its own id and state", async () => {
    const relays = [await listen(bob.did as AgentDid), await listen(carol.did as AgentDid)];
    const { status, body } = await post(alice, inGroup(), { text: "to all" });
    expect([status, Object.keys(body)]).toEqual([202, ["accepted", "groupId", "deliveries"]]);
    expect(body).toMatchObject({ accepted: true, groupId });
    expect(body.deliveries?.map(({ agentDid }) => agentDid).toSorted()).toEqual([bob.did, carol.did].toSorted());
    await eventually(() => expect(relays.map((relay) => relay.deliveries().length)).toEqual([1, 1]));
    for (const relay of relays) {
      expect(relay.deliveries()[0]).toMatchObject({ groupId, fromAgentDid: alice.did, payload: { text: "to all" } });
    }
    const ids = relays.map((relay) => String(relay.deliveries()[0]?.["deliveryId"]));
    expect(body.deliveries?.map(({ deliveryId }) => deliveryId).toSorted()).toEqual(ids.toSorted());
    await eventually(async () =>
      expect(
        await rowsOf(alice.did as AgentDid, "SELECT DISTINCT state FROM outbound WHERE delivery_id IN (?, ?)", ...ids),
      ).toEqual([{ state: 2 }]),
    );
  });

  test("answers a repeat under its key with the same messages, and refuses the key for another body", async () => {
    const keyed = { ...inGroup(), "Idempotency-Key": "once" };
    const first = await post(alice, keyed, { n: 1 });
    await join(dave);
    const again = await post(alice, keyed, { n: 1 });
    expect(again).toEqual(first);
    expect(await post(alice, keyed, { n: 2 })).toMatchObject({ status: 409, body: { code: "PROXY_CONFLICT" } });
    await crashGate(alice.did as AgentDid);
    expect(await post(alice, keyed, { n: 1 })).toEqual(first);
  });

  test("reaches whoever joined before it, whatever is remembered of the group", async () => {
    await post(alice, inGroup());
    await join(dave);
    const { body } = await post(alice, inGroup());
    expect(body.deliveries?.map(({ agentDid }) => agentDid)).toContain(dave.did);
    expect(runtimeOf(env).trust.breaker().state).toBe("closed");
  });

  test("is an empty list where the sender is alone", async () => {
    await result(alice, "group/remove", { groupId, agentDid: bob.did });
    await result(alice, "group/remove", { groupId, agentDid: carol.did });
    expect(await post(alice, inGroup())).toEqual({ status: 202, body: { accepted: true, groupId, deliveries: [] } });
  });
});

describe("whoever leaves or is removed", () => {
  test.each([
    ["leaves", (): Promise<unknown> => result(carol, "group/leave", { groupId })],
    ["is removed", (): Promise<unknown> => result(alice, "group/remove", { groupId, agentDid: carol.did })],
  ])("neither sends nor is sent to once it %s, though caches say otherwise", async (_how, end) => {
    expect((await post(carol, inGroup(bob))).status).toBe(202);
    expect((await post(bob, inGroup(carol))).status).toBe(202);
    await end();
    expect(isRefused(await post(carol, inGroup(bob)))).toBe(true);
    expect(isRefused(await post(carol, inGroup()))).toBe(true);
    expect(isRefused(await post(bob, inGroup(carol)))).toBe(true);
    const { body } = await post(bob, inGroup());
    expect(body.deliveries?.map(({ agentDid }) => agentDid)).toEqual([alice.did]);
  });

  test("gets nothing that waits for it, and nothing of it that waits is delivered; its senders hear of it", async () => {
    const [fromCarol, toCarol] = [await post(carol, inGroup(bob), "from"), await post(bob, inGroup(carol), "to")];
    const ofPair = await post(alice, inGroup(bob), "stays");
    await eventually(async () =>
      expect(await rowsOf(bob.did as AgentDid, "SELECT 1 FROM inbound WHERE state = 0")).toHaveLength(2),
    );
    await result(alice, "group/remove", { groupId, agentDid: carol.did });
    expect((await inbox(bob)).map(({ payload }) => payload)).toEqual(["stays"]);
    expect(await inbox(carol)).toEqual([]);
    for (const [sender, sent] of [
      [carol, fromCarol],
      [bob, toCarol],
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await eventually(async () =>
        expect(
          await rowsOf(
            sender.did as AgentDid,
            "SELECT state, reason FROM outbound WHERE delivery_id = ?",
            String(sent.body["deliveryId"]),
          ),
        ).toEqual([{ state: 3, reason: "trust removed" }]),
      );
    }
    expect(ofPair.status).toBe(202);
  });

  test("a pairing that ends beside a group takes its own messages along, and not those of the group", async () => {
    const paired = await post(alice, { "X-Claw-Recipient-Agent-Did": bob.did }, "never paired");
    expect(paired.status).toBe(403);
    const profile = { agentName: "agent", humanName: "Ann" };
    const route = async (from: Agent, path: string, asked: object): Promise<Record<string, unknown>> => {
      const body = JSON.stringify(asked);
      const headers = await authorization(from, body, { method: "POST", path });
      return (await fetchWorker(new Request(`https://proxy.example${path}`, { method: "POST", body, headers }))).json();
    };
    const { ticket } = await route(alice, "/pair/start", { initiatorProfile: profile });
    await route(bob, "/pair/confirm", { ticket, responderProfile: profile });
    expect((await post(alice, { "X-Claw-Recipient-Agent-Did": bob.did }, "of the pair")).status).toBe(202);
    expect((await post(alice, inGroup(bob), "of the group")).status).toBe(202);
    await eventually(async () =>
      expect(await rowsOf(bob.did as AgentDid, "SELECT 1 FROM inbound WHERE state = 0")).toHaveLength(2),
    );
    expect(await route(bob, "/pair/remove", { peerAgentDid: alice.did })).toEqual({ removed: true });
    expect((await inbox(bob)).map(({ payload }) => payload)).toEqual(["of the group"]);
    expect((await post(alice, inGroup(bob))).status).toBe(202);
  });

  test("is in again at the next request after joining anew", async () => {
    await post(carol, inGroup(bob));
    await result(carol, "group/leave", { groupId });
    await join(carol);
    expect((await post(carol, inGroup(bob))).status).toBe(202);
    expect((await post(bob, inGroup(carol))).status).toBe(202);
  });

  test("a deleted group lets nobody send, and ends what waits in it", async () => {
    await post(alice, inGroup(bob), "gone");
    await eventually(async () =>
      expect(await rowsOf(bob.did as AgentDid, "SELECT 1 FROM inbound WHERE state = 0")).toHaveLength(1),
    );
    await result(alice, "group/delete", { groupId });
    for (const [from, to] of [
      [alice, bob],
      [bob, alice],
      [carol, undefined],
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(isRefused(await post(from, inGroup(to)))).toBe(true);
    }
    expect(await inbox(bob)).toEqual([]);
  });

  test("a gate that has crashed since keeps the fence", async () => {
    await post(carol, inGroup(bob), "late");
    await result(alice, "group/remove", { groupId, agentDid: carol.did });
    await crashGate(bob.did as AgentDid);
    const [{ epoch } = { epoch: 0 }] = await rowsOf(
      bob.did as AgentDid,
      "SELECT epoch FROM group_fences WHERE group_id = ? AND subject = ?",
      groupId,
      carol.did,
    );
    const old = JSON.stringify({ fromAgentDid: carol.did, groupId, groupEpoch: Number(epoch) - 1 });
    const message = { deliveryId: newUlid(Date.now()), createdAtMs: Date.now(), bytes: 3, envelope: old, body: '"x"' };
    await gateStub(bob.did as AgentDid).receive(carol.did as AgentDid, [message]);
    expect(
      await rowsOf(bob.did as AgentDid, "SELECT state FROM inbound WHERE delivery_id = ?", message.deliveryId),
    ).toEqual([{ state: 2 }]);
  });
});

test("changes of groups, and what is sent to all, are counted", async () => {
  await post(alice, inGroup());
  await result(carol, "group/leave", { groupId });
  await eventually(async () => {
    const headers = { Authorization: `Bearer ${env.OPERATOR_TOKEN ?? ""}` };
    const answer = await fetchWorker(new Request("https://proxy.example/metrics", { headers }));
    const families = parseOpenMetrics(new TextDecoder().decode(await answer.arrayBuffer()));
    for (const change of ["created", "joined", "left"]) {
      expect(valueOf(families, "sallyport_group_changes_total", { change })).toBeGreaterThan(0);
    }
    const sends = valueOf(families, "sallyport_group_sends_total", {}) ?? 0;
    expect(sends).toBeGreaterThan(0);
    expect(valueOf(families, "sallyport_group_messages_total", {})).toBeGreaterThan(sends);
  });
});

describe("an enqueue frame", () => {
  const said = async (from: Agent, frame: Record<string, unknown>): Promise<Frame> => {
    const relay = await listen(from.did as AgentDid);
    relay.say({ type: "enqueue", payload: { hello: 1 }, ...frame });
    const ack = await eventually(() => {
      const found = relay.frames.find(({ type }) => type === "enqueue_ack");
      if (found === undefined) throw new Error("no answer yet");
      return found;
    });
    relay.socket.close();
    return ack;
  };

  test("goes to one of a group, and to all of it without a recipient", async () => {
    const relays = [await listen(bob.did as AgentDid), await listen(carol.did as AgentDid)];
    expect(await said(alice, { toAgentDid: bob.did, groupId })).toMatchObject({
      accepted: true,
      deliveryId: expect.any(String),
    });
    await eventually(() => expect(relays[0]?.deliveries()).toHaveLength(1));
    expect(await said(alice, { groupId })).toMatchObject({ accepted: true });
    await eventually(() => expect(relays.map((relay) => relay.deliveries().length)).toEqual([2, 1]));
    for (const relay of relays) expect(relay.deliveries().at(-1)).toMatchObject({ groupId, payload: { hello: 1 } });
  });

  test("is refused in a group that is none, or not both are in, or by a name that is no id", async () => {
    expect(await said(dave, { toAgentDid: bob.did, groupId })).toMatchObject({
      accepted: false,
      reason: "PROXY_AUTH_FORBIDDEN",
    });
    expect(await said(alice, { toAgentDid: dave.did, groupId })).toMatchObject({ accepted: false });
    expect(await said(dave, { groupId })).toMatchObject({ accepted: false, reason: "PROXY_AUTH_FORBIDDEN" });
    expect(await said(alice, { toAgentDid: bob.did, groupId: "a label" })).toMatchObject({
      accepted: false,
      reason: "PROXY_BAD_REQUEST",
    });
  });

  test("reaches whoever joined before it, and nobody who left", async () => {
    await said(alice, { groupId });
    await join(dave);
    await result(bob, "group/leave", { groupId });
    const [gone, came] = [await listen(bob.did as AgentDid), await listen(dave.did as AgentDid)];
    const before = gone.deliveries().length;
    await said(alice, { groupId });
    await eventually(() => expect(came.deliveries()).toHaveLength(1));
    expect(gone.deliveries().length).toBe(before);
  });
});
