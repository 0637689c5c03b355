/** What may go wrong while an authority ends: sockets that do not close, a database that does not answer, admins who are ended themselves. */
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import * as z from "zod/mini";
import { JOB_LIMITS } from "../../../src/housekeeping/jobs.ts";
import { createRevocationPushes } from "../../../src/housekeeping/revocation-push.ts";
import { runBatch } from "../../../src/database/batch.ts";
import { defineMethod } from "../../../src/rpc/method.ts";
import { SOCKETS_PER_HOLDER_MAX } from "../../../src/gate/relay/sockets.ts";
import { createLog } from "../../../src/telemetry/log.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { ProxyError } from "../../../src/wire/problem.ts";
import { newUlid } from "../../../src/wire/ulid.ts";
import {
  call,
  callerOf,
  claim,
  dial,
  done,
  gateStub,
  newAgent,
  newAgentHolder,
  newDeviceKey,
  newSharedSecret,
  open,
  pairDevice,
  withMethods,
} from "../../support/gate-participants.ts";
import { eventually } from "../../support/gate.ts";

const PEER = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000001" as AgentDid;

/** Handlers that go on when the test says so. Looked at on timers of their own: a promise does not cross to the object. */
const released = new Set<string>();
const begun = new Set<string>();
const held = defineMethod({
  name: "test.held",
  surface: "rpc",
  permission: { callers: ["agent", "device", "shared"], roles: [], scope: null },
  params: z.object({ until: z.string() }),
  result: z.object({ done: z.literal(true) }),
  async handler(ctx, { until }) {
    begun.add(until);
    // oxlint-disable-next-line no-await-in-loop
    while (!released.has(until)) await new Promise((resolve) => setTimeout(resolve, 2));
    ctx.gate?.send(PEER, { fromAgentDid: null, payload: JSON.stringify({ until }) });
    return { done: true as const };
  },
});

const endAgent = defineMethod({
  name: "test.end",
  surface: "rpc",
  permission: { callers: ["operator"], roles: ["owner"], scope: null },
  params: z.object({ keepJti: z.optional(z.string()) }),
  result: z.object({ sockets: z.int(), inFlight: z.int() }),
  async handler(ctx, { keepJti }) {
    if (ctx.gate === null) throw new Error("no gate");
    return ctx.gate.endAgent({
      reason: "test",
      ...(keepJti === undefined ? {} : { keepJti }),
      async commit(raise) {
        await runBatch(ctx.db, raise);
        return [];
      },
    });
  },
});

beforeAll(() => withMethods([held, endAgent]));
afterEach(() => void vi.restoreAllMocks());

const sentBy = (did: AgentDid): Promise<number> =>
  runInDurableObject(
    gateStub(did),
    (_gate, { storage }) => storage.sql.exec<{ n: number }>("SELECT COUNT(*) AS n FROM outbound").one().n,
  );

const never = (): Promise<never> => new Promise(() => {});

/** Puts another database in the place of the objects' own. They share one environment: one such test at a time. */
async function withDatabase<T>(over: (real: D1Database) => Partial<D1Database>, work: () => Promise<T>): Promise<T> {
  const place = await runInDurableObject(
    gateStub(newAgent()),
    (gate) => (gate as unknown as { env: { DB: D1Database } }).env,
  );
  const real = place.DB;
  const own = {
    prepare: real.prepare.bind(real),
    batch: real.batch.bind(real),
    withSession: real.withSession.bind(real),
  };
  place.DB = { ...own, ...over(real) } as D1Database;
  try {
    return await work();
  } finally {
    place.DB = real;
  }
}

describe("a socket that has just gone", () => {
  test("leaves a receipt to the next", async () => {
    const agent = newAgentHolder(newAgent());
    const [one, other] = [await pairDevice(agent, ["relay"]), await pairDevice(agent, ["relay"])];
    const lines = [await open(one), await open(other)];
    await runInDurableObject(gateStub(agent.did), (_gate, { storage }) =>
      storage.sql.exec(
        "INSERT INTO outbound (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, envelope) VALUES ('a-delivery', ?, 1, 2, 1, 1, '{}')",
        PEER,
      ),
    );
    vi.spyOn(WebSocket.prototype, "send").mockImplementationOnce(() => {
      throw new Error("gone");
    });
    await gateStub(agent.did).settle([
      { deliveryId: "a-delivery", delivered: false, reason: "expired", attempts: 1, atMs: 1 },
    ]);
    await eventually(() =>
      expect(lines.flatMap(({ frames }) => frames)).toMatchObject([{ type: "receipt", deliveryId: "a-delivery" }]),
    );
  });
});

describe("a socket whose close fails", () => {
  test("is logged, and neither acts nor hears anything any more, also after the gate has slept", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay", "send"]);
    const line = await open(device);
    const logged = vi.spyOn(console, "error");
    vi.spyOn(WebSocket.prototype, "close").mockImplementation(() => {
      throw new Error("stuck");
    });
    const revoked = await done(agent.did, "device.token.revoke", { deviceId: device.deviceId });
    expect(revoked).toMatchObject({ fenced: { sockets: 1 } });
    await eventually(() => expect(JSON.stringify(logged.mock.calls)).toContain("relay.close_failed"));
    for (const sleeps of [false, true]) {
      // oxlint-disable no-await-in-loop -- awake, and after a sleep
      if (sleeps) await evictDurableObject(gateStub(agent.did));
      line.say({ type: "enqueue", toAgentDid: PEER, payload: {} });
      line.say({ type: "heartbeat" });
      line.say({ type: "req", method: "device.pair.list" });
      await gateStub(agent.did).notify({ fromAgentDid: null, payload: "{}" });
      await new Promise((resolve) => setTimeout(resolve, 30));
      expect(line.frames).toEqual([]);
      expect(await sentBy(agent.did)).toBe(0);
      // oxlint-enable no-await-in-loop
    }
  });
});

describe("a database that does not answer", () => {
  test(
    "makes every end a DRAIN_TIMEOUT after 5 s, retryable, with the old authority refused; repeated it succeeds",
    { timeout: 40_000 },
    async () => {
      const cases = [
        { name: "rotate", method: "device.token.rotate" },
        { name: "revoke", method: "device.token.revoke" },
        { name: "remove", method: "device.pair.remove" },
        { name: "shared", method: "shared.auth.rotate" },
        { name: "agent", method: "test.end" },
        { name: "rekey", method: "test.end" },
      ];
      const prepared = await Promise.all(
        cases.map(async ({ name, method }) => {
          const agent = newAgentHolder(newAgent());
          const target =
            name === "shared" ? await newSharedSecret(agent.did) : await pairDevice(agent, ["relay", "send"]);
          const ofDevice = target.kind === "device" && method.startsWith("device") ? { deviceId: target.deviceId } : {};
          return {
            name,
            method,
            did: agent.did,
            target,
            params: name === "rekey" ? { keepJti: newUlid(Date.now()) } : ofDevice,
          };
        }),
      );
      await withDatabase(
        (real) => ({
          batch: never,
          withSession: () => ({ prepare: real.prepare.bind(real), batch: never }) as never,
        }),
        () =>
          Promise.all(
            prepared.map(async ({ name, method, did, target, params }) => {
              const startedMs = Date.now();
              const answer = call(did, method, params);
              // Over at once, though nobody may say so yet.
              await eventually(async () =>
                expect(await call(target, "device.pair.list"), name).toHaveProperty("reason"),
              );
              expect(await answer, name).toMatchObject({ ok: false, code: "DRAIN_TIMEOUT", retryAfterMs: 1_000 });
              expect(Date.now() - startedMs).toBeGreaterThanOrEqual(4_900);
              expect(await call(target, "device.pair.list"), name).toHaveProperty("reason");
            }),
          ),
      );
      for (const { name, method, did, target, params } of prepared) {
        // oxlint-disable no-await-in-loop -- one after the other reads better where it fails
        expect(await call(did, method, params), name).toMatchObject({ ok: true });
        expect(await call(target, "device.pair.list"), name).toHaveProperty("reason");
        // oxlint-enable no-await-in-loop
      }
    },
  );

  test("leaves a device that rotated itself a token to claim", { timeout: 20_000 }, async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    await withDatabase(
      (real) => ({ withSession: () => ({ prepare: real.prepare.bind(real), batch: never }) as never }),
      async () =>
        expect(await call(device, "device.token.rotate", { deviceId: device.deviceId })).toMatchObject({
          code: "DRAIN_TIMEOUT",
        }),
    );
    expect(await claim(device)).toMatchObject({ ok: true, epoch: 2 });
  });
});

describe("a call that does not come to its end", () => {
  test("keeps an end from being answered, and has no effect when it goes on", { timeout: 20_000 }, async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay", "send"]);
    const until = crypto.randomUUID();
    const stuck = call(device, "test.held", { until });
    await eventually(() => expect(begun).toContain(until));
    const first = await call(agent.did, "device.token.revoke", { deviceId: device.deviceId });
    expect(first).toMatchObject({ ok: false, code: "DRAIN_TIMEOUT" });
    released.add(until);
    expect(await stuck).toMatchObject({ ok: false, code: "PROXY_AUTH_REVOKED" });
    expect(await sentBy(agent.did)).toBe(0);
    expect(await call(agent.did, "device.token.revoke", { deviceId: device.deviceId })).toMatchObject({ ok: true });
  });
});

describe("an admin who is ended while he ends another", () => {
  test("is not answered as if nothing had happened, and his end waits for what he began", async () => {
    const agent = newAgentHolder(newAgent());
    const admin = await pairDevice(agent, ["relay", "devices"]);
    const other = await pairDevice(agent, ["relay"]);
    let arrived = 0;
    const order: string[] = [];
    await withDatabase(
      (real) => ({
        withSession: (() => ({
          prepare: real.prepare.bind(real),
          async batch(statements: D1PreparedStatement[]) {
            arrived += 1;
            if (arrived === 1)
              for (let turn = 0; turn < 40; turn += 1) await new Promise((resolve) => setTimeout(resolve, 2));
            return real.batch(statements);
          },
        })) as never,
      }),
      async () => {
        const his = call(admin, "device.token.revoke", { deviceId: other.deviceId }).then((reply) => {
          order.push("his");
          return reply;
        });
        await eventually(() => expect(arrived).toBe(1));
        const end = call(agent.did, "device.token.revoke", { deviceId: admin.deviceId }).then((reply) => {
          order.push("the end");
          return reply;
        });
        expect(await his).toMatchObject({ ok: false, code: "PROXY_AUTH_REVOKED" });
        expect(await end).toMatchObject({ ok: true, result: { fenced: { inFlight: 1 } } });
      },
    );
    expect(order).toEqual(["his", "the end"]);
    // What he had done while he might is done, and both are over.
    expect(await call(other, "device.pair.list")).toEqual({ reason: "gate-client-invalidated" });
    expect(await call(admin, "device.pair.list")).toEqual({ reason: "gate-client-invalidated" });
  });
});

describe("a re-key that is refused", () => {
  test("leaves the agent as it was, and a revocation that was committed meanwhile as it is", async () => {
    const refused = defineMethod({
      name: "test.refused",
      surface: "rpc",
      permission: { callers: ["operator"], roles: ["owner"], scope: null },
      params: z.object({}),
      result: z.object({}),
      async handler(ctx) {
        await ctx.gate?.endAgent({
          reason: "rekeyed",
          keepJti: newUlid(ctx.now()),
          commit: () => Promise.reject(new ProxyError("PROXY_CONFLICT")),
        });
        return {};
      },
    });
    await withMethods([held, endAgent, refused]);
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    expect(await call(agent.did, "test.refused")).toMatchObject({ code: "PROXY_CONFLICT" });
    expect(await call(device, "device.pair.list")).toMatchObject({ ok: true });
    expect(await call(agent, "device.pair.list")).toMatchObject({ ok: true });
    await done(agent.did, "test.end");
    expect(await call(agent.did, "test.refused")).toMatchObject({ code: "PROXY_CONFLICT" });
    expect(await call(agent, "device.pair.list")).toEqual({ reason: "gate-agent-revoked" });
  });
});

test.each(["device.pair.approve", "device.token.rotate", "shared.auth.rotate"])(
  "an operator is told that the agent has been revoked: %s gives out nothing new",
  async (method) => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const { x: publicKey } = await newDeviceKey();
    const { requestId, digest } = await done(agent, "device.pair.request", { publicKey, scopes: ["relay"] });
    await done(agent.did, "test.end");
    const { deviceId } = device;
    const params = {
      "device.pair.approve": { requestId, digest },
      "device.token.rotate": { deviceId },
      "shared.auth.rotate": {},
    }[method];
    expect(await call(agent.did, method, params)).toMatchObject({ ok: false, code: "PROXY_CONFLICT" });
    // To end something twice is no error.
    expect(await call(agent.did, "device.token.revoke", { deviceId })).toMatchObject({ ok: true });
  },
);

describe("a socket", () => {
  test("of the agent takes the place of the agent's older one; devices stay, and are no reason to be turned away", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const beside = [await open(device), await open(device)];
    const older = await open(agent);
    const newer = await open(agent);
    await expect(older.closed).resolves.toEqual({ code: 1000, reason: "superseded" });
    for (const line of [...beside, newer]) {
      line.say({ type: "heartbeat" });
      // oxlint-disable-next-line no-await-in-loop
      await eventually(() => expect(line.frames.at(-1)).toMatchObject({ type: "heartbeat_ack" }));
    }
  });

  test("ends by alarm with its credential, 4001 and why", async () => {
    const agent = newAgentHolder(newAgent(), Date.now() + 800);
    const line = await open(agent);
    await new Promise((resolve) => setTimeout(resolve, 810));
    await runDurableObjectAlarm(gateStub(agent.did));
    await expect(line.closed).resolves.toEqual({ code: 4001, reason: "credential expired" });
  });

  test("is closed with 1008 at the tenth malformed frame, sleeps between them or not", async () => {
    const agent = newAgentHolder(newAgent());
    const line = await open(agent);
    for (let sent = 1; sent <= 9; sent += 1) line.socket.send("no frame");
    await eventually(() => expect(line.frames).toHaveLength(9));
    expect(line.frames.at(-1)).toMatchObject({ type: "event", event: "error", seq: 9 });
    await evictDurableObject(gateStub(agent.did));
    expect(line.closure()).toBeNull();
    line.socket.send("no frame");
    await expect(line.closed).resolves.toMatchObject({ code: 1008 });
  });

  test("has 32 calls at work or waiting; what comes beyond is told to come again", async () => {
    const agent = newAgentHolder(newAgent());
    const line = await open(agent);
    const until = crypto.randomUUID();
    const ids = Array.from({ length: 40 }, () => line.say({ type: "req", method: "test.held", params: { until } }));
    await eventually(() => expect(line.frames).toHaveLength(8));
    expect(line.frames.map((frame) => frame["id"])).toEqual(ids.slice(32));
    for (const frame of line.frames) {
      expect(frame).toMatchObject({
        type: "res",
        ok: false,
        error: { code: "OVERLOADED", retryable: true, retryAfterMs: 1_000 },
      });
    }
    released.add(until);
    await eventually(() => expect(line.frames).toHaveLength(40));
    expect(line.frames.slice(8).map((frame) => [frame["id"], frame["ok"]])).toEqual(
      ids.slice(0, 32).map((id) => [id, true]),
    );
  });

  test("is one of 32 of its secret at most; the agent's own makes room for itself", async () => {
    const agent = newAgentHolder(newAgent());
    const shared = await newSharedSecret(agent.did);
    const own = await open(agent);
    const lines = await Promise.all(Array.from({ length: SOCKETS_PER_HOLDER_MAX }, () => open(shared)));
    expect(await dial(agent.did, { caller: await callerOf(shared) })).toBe(429);
    const newer = await open(agent);
    await expect(own.closed).resolves.toMatchObject({ reason: "superseded" });
    const rotated = await done(agent.did, "shared.auth.rotate");
    expect(rotated).toMatchObject({ fenced: { sockets: SOCKETS_PER_HOLDER_MAX } });
    await Promise.all(
      lines.map(async ({ closed }) => expect(await closed).toEqual({ code: 4001, reason: "gateway auth changed" })),
    );
    expect(newer.closure()).toBeNull();
  });
});

describe("a registry's revocation list", () => {
  test("ends an idle socket of the agent whose token is in it, and is pushed again where it failed", async () => {
    const agent = newAgentHolder(newAgent());
    const other = newAgentHolder(newAgent());
    const [line, untouched] = [await open(agent), await open(other)];
    let attempts = 0;
    let nowMs = Date.now();
    const bring = (): Promise<unknown> =>
      runInDurableObject(env.HOUSEKEEPING.getByName("test"), (_object, { storage }) => {
        const pushes = createRevocationPushes(storage.sql);
        pushes.take([{ jti: agent.jti, agentDid: agent.did }], nowMs);
        return pushes.push(JOB_LIMITS.revocations, {
          async endTokens(did, tokens) {
            attempts += 1;
            if (attempts === 1) throw new Error("the gate is out of reach");
            await gateStub(did as AgentDid).endTokens(tokens, "revoked by the registry");
          },
          listMaxAgeMs: 1_800_000,
          now: () => nowMs,
          log: createLog(),
        });
      });
    await bring();
    expect(line.closure()).toBeNull();
    nowMs += 15_000;
    await bring();
    await expect(line.closed).resolves.toEqual({ code: 4001, reason: "agent revoked" });
    await bring();
    expect(attempts).toBe(2);
    expect(await call(agent, "device.pair.list")).toEqual({ reason: "gate-agent-revoked" });
    expect(untouched.closure()).toBeNull();
  });
});
