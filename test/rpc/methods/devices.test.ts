/** Who may do what with an agent's devices, what refusals tell, and what is left behind for those who look later. */
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { deliveryMethods } from "../../../src/rpc/methods/deliveries.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import {
  call,
  callAll,
  callerOf,
  claim,
  type DeviceKey,
  dial,
  done,
  gateStub,
  hashOf,
  type Holder,
  newAgent,
  newAgentHolder,
  newDeviceKey,
  newSharedSecret,
  open,
  pairDevice,
  proofBy,
  withMethods,
} from "../../support/gate-participants.ts";
import { crashGate, eventually } from "../../support/gate.ts";

beforeAll(() => withMethods(deliveryMethods));

const nobody = "n".repeat(22);
const byText = (a: string, b: string): number => (a < b ? -1 : 1);

async function requested(agent: Holder, scopes: string[], key?: DeviceKey) {
  const own = key ?? (await newDeviceKey());
  const asked = await done(agent, "device.pair.request", { publicKey: own.x, scopes });
  return { ...(asked as unknown as { requestId: string; deviceId: string; digest: string }), key: own };
}

describe("every refusal about a device", () => {
  test("is byte for byte the one for a device that does not exist", async () => {
    const agent = newAgentHolder(newAgent());
    const manager = await pairDevice(agent, ["relay", "devices"]);
    const plain = await pairDevice(agent, ["relay"]);
    const strong = await pairDevice(agent, ["relay", "send", "admin"]);
    const revoked = await pairDevice(agent, ["relay"]);
    await done(agent.did, "device.token.revoke", { deviceId: revoked.deviceId });
    const removed = await pairDevice(agent, ["relay"]);
    await done(agent.did, "device.pair.remove", { deviceId: removed.deviceId });
    const pending = await requested(agent, ["relay"]);
    const beyond = await requested(agent, ["relay", "admin"]);
    const again = await requested(agent, ["relay"], manager.key);

    const absent = JSON.stringify(await call(manager, "device.token.rotate", { deviceId: nobody }));
    expect(JSON.parse(absent)).toMatchObject({ ok: false, code: "PROXY_NOT_FOUND" });
    const refusals: [string, Holder, string, Record<string, unknown>][] = [
      ["another's token, without the scope", plain, "device.token.rotate", { deviceId: strong.deviceId }],
      ["another's end, without the scope", plain, "device.token.revoke", { deviceId: strong.deviceId }],
      ["another's removal, without the scope", plain, "device.pair.remove", { deviceId: strong.deviceId }],
      ["another's name, without the scope", plain, "device.pair.rename", { deviceId: strong.deviceId, label: "mine" }],
      [
        "an approval, without the scope",
        plain,
        "device.pair.approve",
        { requestId: pending.requestId, digest: pending.digest },
      ],
      ["a rejection, without the scope", plain, "device.pair.reject", { requestId: pending.requestId }],
      ["a rotation beyond what the manager holds", manager, "device.token.rotate", { deviceId: strong.deviceId }],
      [
        "a rotation beyond what was approved",
        manager,
        "device.token.rotate",
        { deviceId: plain.deviceId, scopes: ["devices"] },
      ],
      ["more for itself", plain, "device.token.rotate", { deviceId: plain.deviceId, scopes: ["relay", "send"] }],
      ["a revoked device", manager, "device.token.rotate", { deviceId: revoked.deviceId }],
      ["a removed device", manager, "device.token.rotate", { deviceId: removed.deviceId }],
      [
        "an approval beyond what the manager holds",
        manager,
        "device.pair.approve",
        { requestId: beyond.requestId, digest: beyond.digest },
      ],
      [
        "an approval of its own key",
        manager,
        "device.pair.approve",
        { requestId: again.requestId, digest: again.digest },
      ],
      [
        "an approval of the agent's own request",
        agent,
        "device.pair.approve",
        { requestId: pending.requestId, digest: pending.digest },
      ],
      [
        "an approval of what was not shown",
        manager,
        "device.pair.approve",
        { requestId: pending.requestId, digest: beyond.digest },
      ],
      ["another agent's device", manager, "device.token.revoke", { deviceId: plain.deviceId, agentDid: newAgent() }],
    ];
    for (const [what, holder, method, params] of refusals) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other, so that a failure has its name
      expect(JSON.stringify(await call(holder, method, params)), what).toBe(absent);
    }
  });

  test("costs the same and says the same, be the device unknown or the token wrong", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const stranger = await newDeviceKey();
    const seen = async (holder: Holder) => {
      const caller = await callerOf(holder);
      const verify = vi.spyOn(crypto.subtle, "verify");
      const digest = vi.spyOn(crypto.subtle, "digest");
      const reads = await runInDurableObject(gateStub(agent.did), (_gate, { storage }) =>
        vi.spyOn(Object.getPrototypeOf(storage.sql) as SqlStorage, "exec"),
      );
      const answer = await callAll(agent.did, caller, [{ method: "device.pair.list" }]);
      const cost = {
        verify: verify.mock.calls.length,
        digest: digest.mock.calls.length,
        reads: reads.mock.calls.length,
      };
      vi.restoreAllMocks();
      return { answer, cost };
    };
    const wrongToken = await seen({ ...device, token: `spd_${"w".repeat(43)}` });
    const wrongKey = await seen({ ...device, key: stranger });
    const unknown = await seen({ ...device, deviceId: nobody, key: stranger, token: `spd_${"u".repeat(43)}` });
    expect(wrongToken.cost.verify).toBe(1);
    expect(wrongToken.cost.reads).toBeGreaterThan(0);
    expect(wrongKey).toEqual(wrongToken);
    expect(unknown).toEqual(wrongToken);
    expect(unknown.answer).toEqual({ ok: false, refusal: { reason: "gate-credential-refused" } });
  });
});

describe("an approval", () => {
  test("is given once, by one of two admins at once", async () => {
    const agent = newAgentHolder(newAgent());
    const managers = await Promise.all([
      pairDevice(agent, ["relay", "devices"]),
      pairDevice(agent, ["relay", "devices"]),
    ]);
    const { requestId, digest } = await requested(agent, ["relay"]);
    const answers = await Promise.all(
      [...managers, agent.did].map((by) => call(by, "device.pair.approve", { requestId, digest })),
    );
    expect(answers.filter((answer) => "ok" in answer && answer.ok)).toHaveLength(1);
    expect(await call(agent.did, "device.pair.approve", { requestId, digest })).toMatchObject({
      code: "PROXY_NOT_FOUND",
    });
  });

  test("is possible for twenty requests at most; the same key has one, and it is the newest that counts", async () => {
    const agent = newAgentHolder(newAgent());
    const first = await requested(agent, ["relay"]);
    const changed = await requested(agent, ["relay", "send"], first.key);
    expect(changed.requestId).toBe(first.requestId);
    expect(
      await call(agent.did, "device.pair.approve", { requestId: first.requestId, digest: first.digest }),
    ).toMatchObject({ code: "PROXY_NOT_FOUND" });
    for (let more = 1; more < 20; more += 1) await requested(agent, ["relay"]); // oxlint-disable-line no-await-in-loop
    const { x } = await newDeviceKey();
    expect(await call(agent, "device.pair.request", { publicKey: x, scopes: ["relay"] })).toMatchObject({
      code: "PROXY_CONFLICT",
    });
    expect(await requested(agent, ["relay"], first.key)).toMatchObject({ requestId: first.requestId });
  });

  test("of a device that was revoked goes on with its epochs, and its old token stays over", async () => {
    const agent = newAgentHolder(newAgent());
    const before = await pairDevice(agent, ["relay"]);
    expect(await done(agent.did, "device.token.revoke", { deviceId: before.deviceId })).toMatchObject({ epoch: 2 });
    const after = await pairDevice(agent, ["relay"], before.key);
    expect(after.deviceId).toBe(before.deviceId);
    expect(await call(before, "device.pair.list")).toEqual({ reason: "gate-client-invalidated" });
    expect(await done(after, "device.pair.list")).toMatchObject({ paired: [{ epoch: 3, status: "active" }] });
  });
});

describe("a device's label", () => {
  test.each([
    ["a bidi override", "desk\u202epot"],
    ["a bidi isolate", "\u2066desk"],
    ["a zero-width space", "de\u200bsk"],
    ["a Hangul filler", "\u3164"],
    ["half a character", "desk\ud800"],
    ["nothing but white space", "  "],
    ["more than 64 characters", "\u{1f5a5}".repeat(65)],
  ])("is refused with %s, at its request and at a renaming", async (_what, label) => {
    const agent = newAgentHolder(newAgent());
    const { x } = await newDeviceKey();
    const { deviceId } = await pairDevice(agent, ["relay"]);
    const refused = { ok: false, code: "PROXY_BAD_REQUEST" };
    expect(await call(agent, "device.pair.request", { publicKey: x, scopes: ["relay"], label })).toMatchObject(refused);
    expect(await call(agent, "device.pair.rename", { deviceId, label })).toMatchObject(refused);
  });

  test("is counted in code points: 64 signs of two units each are taken", async () => {
    const agent = newAgentHolder(newAgent());
    const { deviceId } = await pairDevice(agent, ["relay"]);
    const label = "\u{1f5a5}".repeat(64);
    expect(await done(agent, "device.pair.rename", { deviceId, label })).toEqual({ deviceId, label });
  });
});

describe("a paired device that asks for more", () => {
  const asked = async (device: Holder, scopes: string[]) =>
    (await done(device, "device.scopes.request", { scopes })) as unknown as { deviceId: string; digest: string };

  test("holds it once somebody else has approved it, with the token that it has", async () => {
    const agent = newAgentHolder(newAgent());
    const manager = await pairDevice(agent, ["relay", "send", "devices"]);
    const device = await pairDevice(agent, ["relay"]);
    const request = await asked(device, ["send"]);
    expect(request).toMatchObject({ deviceId: device.deviceId, scopes: ["relay", "send"] });
    expect(await done(manager, "device.pair.list")).toMatchObject({ scopeRequests: [{ digest: request.digest }] });
    expect(await done(device, "device.pair.list")).toMatchObject({ scopeRequests: [] });
    const { deviceId, digest } = request;
    expect(await done(manager, "device.scopes.approve", { deviceId, digest })).toEqual({
      deviceId,
      scopes: ["relay", "send"],
      epoch: 1,
    });
    expect(await done(device, "device.pair.list")).toMatchObject({
      paired: [{ scopes: ["relay", "send"], approvedScopes: ["relay", "send"], status: "active" }],
    });
    expect(await call(manager, "device.scopes.approve", { deviceId, digest })).toMatchObject({
      code: "PROXY_NOT_FOUND",
    });
  });

  test("is told of to the sockets of those who may approve it, as is the approval, and to no other", async () => {
    const agent = newAgentHolder(newAgent());
    const manager = await pairDevice(agent, ["relay", "send", "devices"]);
    const device = await pairDevice(agent, ["relay"]);
    const [own, managers, plain] = [await open(agent), await open(manager), await open(device)];
    const { deviceId, digest } = await asked(device, ["send"]);
    await done(manager, "device.scopes.approve", { deviceId, digest });
    for (const line of [own, managers])
      // oxlint-disable-next-line no-await-in-loop -- one after the other, so that a failure has its name
      await eventually(() =>
        expect(line.frames.map(({ event, payload }) => [event, payload])).toEqual([
          ["device.scopes.requested", expect.objectContaining({ deviceId, digest, scopes: ["relay", "send"] })],
          ["device.scopes.approved", { deviceId, scopes: ["relay", "send"], epoch: 1 }],
        ]),
      );
    expect(plain.frames).toEqual([]);
  });

  test("is refused as if it did not exist: by itself, beyond what the approver holds, not as it was shown, after its end", async () => {
    const agent = newAgentHolder(newAgent());
    const absent = JSON.stringify(
      await call(agent, "device.scopes.approve", { deviceId: nobody, digest: "d".repeat(43) }),
    );
    const plain = await pairDevice(agent, ["relay", "send"]);
    const manager = await pairDevice(agent, ["relay", "devices"]);
    const own = await asked(manager, ["send"]);
    const beyond = await asked(plain, ["admin"]);
    const refusals: [string, Holder | AgentDid, Record<string, unknown>][] = [
      ["its own", manager, own],
      ["without the scope", plain, own],
      ["beyond what the approver holds", manager, beyond],
      ["of another digest", agent.did, { ...beyond, digest: own.digest }],
      ["of a device that is not there", manager, { ...beyond, deviceId: nobody }],
    ];
    for (const [what, by, { deviceId, digest }] of refusals) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other, so that a failure has its name
      expect(JSON.stringify(await call(by, "device.scopes.approve", { deviceId, digest })), what).toBe(absent);
    }
    await done(agent.did, "device.pair.rename", { deviceId: plain.deviceId, label: "another" });
    const { deviceId, digest } = beyond;
    expect(JSON.stringify(await call(agent.did, "device.scopes.approve", { deviceId, digest }))).toBe(absent);
    const again = await asked(plain, ["admin"]);
    await done(agent.did, "device.token.revoke", { deviceId });
    expect(JSON.stringify(await call(agent.did, "device.scopes.approve", { deviceId, digest: again.digest }))).toBe(
      absent,
    );
    expect(await call(agent, "device.scopes.request", { scopes: ["relay"] })).toMatchObject({
      code: "PROXY_AUTH_FORBIDDEN",
    });
  });
});

test("device.pair.list: says which devices are connected", async () => {
  const agent = newAgentHolder(newAgent());
  const online = await pairDevice(agent, ["relay"]);
  const offline = await pairDevice(agent, ["relay"]);
  await open(online);
  const { paired } = (await done(agent.did, "device.pair.list")) as unknown as {
    paired: { deviceId: string; connected: boolean }[];
  };
  expect(Object.fromEntries(paired.map(({ deviceId, connected }) => [deviceId, connected]))).toEqual({
    [online.deviceId]: true,
    [offline.deviceId]: false,
  });
});

describe("changes to an agent's devices", () => {
  test("are bounded for each who acts for it and for all of them; an end and the operator always pass", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() });
    const agent = newAgentHolder(newAgent());
    const { did } = agent;
    const manager = await pairDevice(agent, ["relay", "devices"]);
    const another = await pairDevice(agent, ["relay", "devices"]);
    const victim = await pairDevice(agent, ["relay"]);
    const rename = (by: Holder | AgentDid) =>
      call(by, "device.pair.rename", { deviceId: victim.deviceId, label: "desk" });
    vi.setSystemTime(Date.now() + 60_000);
    const passed = async (by: Holder): Promise<number> => {
      for (let made = 0; ; made += 1) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const answer = (await rename(by)) as { ok?: boolean; code?: string };
        if (answer.ok !== true) {
          expect(answer).toMatchObject({ code: "PROXY_RATE_LIMIT_EXCEEDED" });
          return made;
        }
      }
    };
    expect(await passed(manager)).toBe(30);
    expect(await passed(another)).toBe(30);
    expect(await rename(agent)).toMatchObject({ code: "PROXY_RATE_LIMIT_EXCEEDED" });
    expect(await rename(did)).toMatchObject({ ok: true });
    await done(manager, "device.token.revoke", { deviceId: victim.deviceId });
    expect(await call(manager, "device.token.revoke", { deviceId: victim.deviceId })).toMatchObject({
      code: "PROXY_RATE_LIMIT_EXCEEDED",
    });
    vi.setSystemTime(Date.now() + 60_000);
    expect(await call(manager, "device.token.revoke", { deviceId: victim.deviceId })).toMatchObject({ ok: true });
    vi.useRealTimers();
  });
});

describe("a removal", () => {
  test("takes the device's pending request with it, and may be repeated with the same answer", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    await requested(agent, ["relay"], device.key);
    const first = await done(agent.did, "device.pair.remove", { deviceId: device.deviceId });
    const second = await done(agent.did, "device.pair.remove", { deviceId: device.deviceId });
    expect(second).toEqual({ ...first, fenced: { sockets: 0, inFlight: 0 } });
    expect(await done(agent.did, "device.pair.list")).toEqual({ pending: [], paired: [], scopeRequests: [] });
  });
});

describe("guessing", () => {
  test("ten wrong secrets lock an address for 5 minutes, others not, and never whoever knows the secret", async () => {
    const agent = newAgentHolder(newAgent());
    const shared = await newSharedSecret(agent.did);
    const guess = async (address: string) =>
      callAll(agent.did, await callerOf({ ...shared, secret: "wrong" }, address), [{ method: "device.pair.list" }]);
    for (let tries = 1; tries <= 10; tries += 1) {
      // oxlint-disable-next-line no-await-in-loop
      expect(await guess("192.0.2.7")).toEqual({ ok: false, refusal: { reason: "gate-credential-refused" } });
    }
    const locked = await guess("192.0.2.7");
    expect(locked).toMatchObject({ ok: false, refusal: { reason: "gate-address-locked" } });
    expect((locked as { refusal: { retryAfterMs: number } }).refusal.retryAfterMs).toBeGreaterThan(299_000);
    expect(await guess("192.0.2.8")).toMatchObject({ refusal: { reason: "gate-credential-refused" } });
    const right = await callAll(agent.did, await callerOf(shared, "192.0.2.7"), [{ method: "device.pair.list" }]);
    expect(right).toMatchObject({ ok: true });
  });

  test("claims count; bad proofs of devices lock nobody", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const stranger = await newDeviceKey();
    for (let tries = 1; tries <= 25; tries += 1) {
      // oxlint-disable-next-line no-await-in-loop
      const answer = await callAll(agent.did, await callerOf({ ...device, key: stranger }, "192.0.2.9"), [
        { method: "device.pair.list" },
      ]);
      expect(answer).toMatchObject({ refusal: { reason: "gate-credential-refused" } });
    }
    const reasons = [];
    for (let tries = 1; tries <= 11; tries += 1) {
      // oxlint-disable-next-line no-await-in-loop
      const answer = await claim({ ...device, key: stranger }, "192.0.2.9");
      reasons.push(answer.ok ? "" : answer.refusal.reason);
    }
    expect(reasons).toEqual([...Array.from({ length: 10 }, () => "gate-credential-refused"), "gate-address-locked"]);
    // That no token waits is told to the device itself, locked address or not.
    expect(await claim(device, "192.0.2.9")).toMatchObject({ refusal: { reason: "gate-nothing-to-claim" } });
  });
});

describe("a shared secret", () => {
  test.each([
    { scopes: ["admin"], may: false },
    { scopes: ["admin", "relay"], may: false },
    { scopes: ["admin", "relay", "send"], may: true },
  ] as const)("is rotated by a device that holds $scopes: $may", async ({ scopes, may }) => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, scopes);
    const refused = { ok: false, code: "PROXY_AUTH_FORBIDDEN" };
    expect(await call(device, "shared.auth.rotate")).toMatchObject(may ? { ok: true } : refused);
  });
});

describe("a claim", () => {
  test("that finds no token has used its proof up: shown again, it gets none either", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const proof = await proofBy(device.key.privateKey, "/v1/devices/claim");
    const show = () =>
      gateStub(agent.did).claim({ deviceId: device.deviceId, proof, address: null, requestId: "test-request" });
    expect(await show()).toMatchObject({ refusal: { reason: "gate-nothing-to-claim" } });
    await done(agent.did, "device.token.rotate", { deviceId: device.deviceId });
    expect(await show()).toMatchObject({ ok: false, refusal: { reason: "gate-nonce-replayed" } });
    expect(await claim(device)).toMatchObject({ ok: true });
  });
});

describe("a relay ticket", () => {
  const ticketOf = async (holder: Holder): Promise<{ ticketSha256: string; protocol: string }> => {
    const answer = (await gateStub(holder.did).call({
      caller: await callerOf(holder),
      surface: "http",
      requestId: "test-request",
      origin: null,
      bookmark: null,
      calls: [{ method: "relay.ticket", params: {} }],
    })) as unknown as { replies: { resultText: string }[] };
    const { ticket } = JSON.parse(answer.replies[0]!.resultText) as { ticket: string };
    return { ticketSha256: await hashOf(ticket), protocol: "sallyport.ticket.x" };
  };

  test("opens one socket", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const ticket = await ticketOf(device);
    const answers = await Promise.all([dial(agent.did, ticket), dial(agent.did, ticket)]);
    expect(answers.filter((answer) => answer === 401)).toHaveLength(1);
  });

  test.each(["rotate", "revoke"])("ends with its issuer's authority: %s", async (how) => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const ticket = await ticketOf(device);
    await done(agent.did, `device.token.${how}`, { deviceId: device.deviceId });
    expect(await dial(agent.did, ticket)).toBe(401);
  });
});

describe("what was done to a device", () => {
  const auditOf = async (
    did: AgentDid,
  ): Promise<{ action: string; actor: string; origin: string | null; result: string }[]> =>
    (
      await env.DB.prepare("SELECT action, actor, origin, result FROM audit WHERE agent_did = ?1 ORDER BY id")
        .bind(did)
        .all<never>()
    ).results;

  test("is in the audit once each: who, what, from where, also what ended nothing", async () => {
    const agent = newAgentHolder(newAgent());
    const { did } = agent;
    const device = await pairDevice(agent, ["relay", "send"]);
    const { deviceId } = device;
    await done(did, "device.pair.rename", { deviceId, label: "desk" });
    const line = await open(device);
    line.say({ type: "req", method: "device.token.rotate", params: { deviceId, scopes: ["relay"] } });
    await eventually(() => expect(line.frames).toHaveLength(1));
    await done(did, "device.token.revoke", { deviceId });
    await done(did, "device.token.revoke", { deviceId });
    const { requestId } = await requested(agent, ["relay"]);
    await done(did, "device.pair.reject", { requestId });
    const expected = [
      ["device.pair.request", `agent:${did}`, "ok"],
      ["device.pair.approve", "operator", "ok"],
      ["device.token.claim", `device:${did}/${deviceId}`, "ok"],
      ["device.pair.rename", "operator", "ok"],
      ["device.token.rotate", `device:${did}/${deviceId}`, "ok"],
      ["device.token.revoke", "operator", "ok"],
      ["device.token.revoke", "operator", "repeated"],
      ["device.pair.request", `agent:${did}`, "ok"],
      ["device.pair.reject", "operator", "ok"],
    ];
    await eventually(async () => {
      const rows = await auditOf(did);
      expect(rows.map(({ action, actor, result }) => `${action} ${actor} ${result}`).toSorted(byText)).toEqual(
        expected.map((row) => row.join(" ")).toSorted(byText),
      );
      expect(rows.every(({ origin }) => origin === "192.0.2.1")).toBe(true);
    });
  });

  test("is in the audit once, though the gate dies before it is brought there", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    await eventually(async () => expect(await auditOf(agent.did)).toHaveLength(3));
    const place = await runInDurableObject(
      gateStub(agent.did),
      (gate) => (gate as unknown as { env: { DB: D1Database } }).env,
    );
    const real = place.DB;
    // The entries do not arrive, everything else does.
    place.DB = {
      prepare: real.prepare.bind(real),
      withSession: real.withSession.bind(real),
      batch: () => Promise.reject(new Error("out of reach")),
    } as unknown as D1Database;
    await done(agent.did, "device.pair.rename", { deviceId: device.deviceId, label: "lost?" });
    await crashGate(agent.did);
    place.DB = real;
    expect(await auditOf(agent.did)).toHaveLength(3);
    // Nobody calls it: its alarm does.
    await runDurableObjectAlarm(gateStub(agent.did));
    await eventually(async () =>
      expect((await auditOf(agent.did)).map(({ action }) => action)).toContain("device.pair.rename"),
    );
    await crashGate(agent.did);
    await runDurableObjectAlarm(gateStub(agent.did));
    await done(agent.did, "device.pair.list");
    expect(await auditOf(agent.did)).toHaveLength(4);
  });

  test("is told to sockets with the scope for devices, and to no other", async () => {
    const agent = newAgentHolder(newAgent());
    const manager = await open(await pairDevice(agent, ["relay", "devices"]));
    const plain = await open(await pairDevice(agent, ["relay"]));
    const device = await pairDevice(agent, ["relay"]);
    await done(agent.did, "device.token.rotate", { deviceId: device.deviceId });
    await done(agent.did, "device.token.revoke", { deviceId: device.deviceId });
    const events = [
      "device.pair.requested",
      "device.pair.resolved",
      "device.pair.requested",
      "device.pair.resolved",
      "device.token.rotated",
      "device.token.revoked",
    ];
    await eventually(() =>
      expect(manager.frames.map(({ event, seq }) => [event, seq])).toEqual(
        events.map((event, index) => [event, index + 1]),
      ),
    );
    expect(plain.frames).toEqual([]);
  });

  test("shows when it was last used, to the minute and with a write a minute at most", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const lastUsed = async () =>
      ((await done(device, "device.pair.list")) as unknown as { paired: { lastUsedAtMs: number }[] }).paired[0]
        ?.lastUsedAtMs;
    const first = await lastUsed();
    expect(first! % 60_000).toBe(0);
    expect(Date.now() - first!).toBeLessThan(120_000);
    const writes = await runInDurableObject(gateStub(agent.did), (_gate, { storage }) =>
      vi.spyOn(Object.getPrototypeOf(storage.sql) as SqlStorage, "exec"),
    );
    await lastUsed();
    const touched = writes.mock.calls.filter(([text]) => text.includes("UPDATE devices SET last_used_at_ms"));
    vi.restoreAllMocks();
    expect(touched.length).toBeLessThanOrEqual(1);
  });
});
