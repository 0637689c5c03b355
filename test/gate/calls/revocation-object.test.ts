/** The revocation guarantee on the object itself: real sockets, real D1, real crashes and evictions, in random histories. */
import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { assert as holds, asyncProperty, constantFrom, integer, record } from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { fencingTokens } from "../../../src/authority/reference.ts";
import { runBatch } from "../../../src/database/batch.ts";
import { fenceStatement } from "../../../src/database/fencing.ts";
import { defineMethod } from "../../../src/rpc/method.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { ProxyError } from "../../../src/wire/problem.ts";
import { newUlid } from "../../../src/wire/ulid.ts";
import {
  call,
  callerOf,
  claimed,
  dial,
  done,
  gateStub,
  type Holder,
  newAgent,
  newAgentHolder,
  newDeviceKey,
  newSharedSecret,
  open,
  pairDevice,
  withMethods,
} from "../../support/gate-participants.ts";
import { crashGate } from "../../support/gate.ts";

/** Each takes fifty times as long as one of the simulator. */
const HISTORIES = Math.ceil(Number(env.HISTORIES || 1_200) / 40);
const PEER = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000001";

const rest = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A handler that is slow, and one that forgets to look before it writes. */
const effect = defineMethod({
  name: "test.effect",
  surface: "rpc",
  permission: { callers: ["agent", "device", "shared"], roles: [], scope: null },
  params: z.object({ mark: z.string(), authority: z.string(), waitMs: z.int(), careless: z.boolean() }),
  result: z.object({ done: z.literal(true) }),
  async handler(ctx, { mark, authority, waitMs, careless }) {
    const begun = [fenceStatement(ctx.authority.fence())];
    await rest(waitMs);
    if (!careless) {
      ctx.authority.assertCurrent();
      ctx.gate?.send(PEER as AgentDid, { fromAgentDid: null, payload: JSON.stringify({ mark }) });
    }
    const row = ctx.db
      .prepare(
        "INSERT INTO effects_of_test (mark, raised) SELECT ?1, COALESCE((SELECT epoch FROM authority_epochs WHERE authority = ?2), 0)",
      )
      .bind(mark, authority);
    try {
      await runBatch(ctx.db, [...begun, row]);
    } catch (cause) {
      throw new ProxyError("PROXY_AUTH_REVOKED", { cause });
    }
    return { done: true as const };
  },
});

const endAgent = defineMethod({
  name: "test.end",
  surface: "rpc",
  permission: { callers: ["operator"], roles: ["owner"], scope: null },
  params: z.object({ keepJti: z.optional(z.string()), jti: z.string() }),
  result: z.object({ sockets: z.int(), inFlight: z.int() }),
  async handler(ctx, { keepJti, jti }) {
    if (ctx.gate === null) throw new Error("no gate");
    return ctx.gate.endAgent({
      reason: "test",
      ...(keepJti === undefined ? {} : { keepJti }),
      async commit(raise) {
        await runBatch(ctx.db, raise);
        return [{ jti, expMs: ctx.now() + 86_400_000 }];
      },
    });
  },
});

beforeAll(async () => {
  await env.DB.exec(
    "CREATE TABLE effects_of_test (id INTEGER PRIMARY KEY, mark TEXT NOT NULL, raised INTEGER NOT NULL)",
  );
  await withMethods([effect, endAgent]);
});

const KINDS = ["rotate", "revoke", "remove", "itself", "shared", "agent", "rekey"] as const;

const history = record({
  kind: constantFrom(...KINDS),
  sockets: integer({ min: 1, max: 3 }),
  burst: integer({ min: 4, max: 24 }),
  endAt: integer({ min: 0, max: 24 }),
  waitMs: integer({ min: 0, max: 4 }),
  careless: integer({ min: 0, max: 3 }),
  after: constantFrom("nothing", "evict", "crash", "crash amid"),
});

type History = {
  kind: (typeof KINDS)[number];
  sockets: number;
  burst: number;
  endAt: number;
  waitMs: number;
  careless: number;
  after: string;
};

type Parties = { did: AgentDid; target: Holder; bystander: Holder | null; authority: string; epoch: number };

async function gather(kind: History["kind"]): Promise<Parties> {
  const agent = newAgentHolder(newAgent());
  const { did } = agent;
  if (kind === "agent" || kind === "rekey") {
    await call(agent, "device.pair.list");
    return { did, target: agent, bystander: null, authority: `agent:${did}`, epoch: 0 };
  }
  if (kind === "shared") {
    return { did, target: await newSharedSecret(did), bystander: agent, authority: `shared:${did}`, epoch: 1 };
  }
  const device = await pairDevice(agent, ["relay", "send", "tasks:write"], await newDeviceKey());
  const principal = { deviceId: device.deviceId };
  const [own] = fencingTokens(did, { kind: "device", epoch: 1, expMs: 0, principal } as never, 0);
  const { authority } = own!;
  return { did, target: device, bystander: agent, authority, epoch: 1 };
}

/** @returns whether the end was answered as reached */
function end({ did, target }: Parties, kind: History["kind"]): Promise<boolean> {
  const jti = target.kind === "agent" ? target.jti : "";
  const deviceId = target.kind === "device" ? target.deviceId : "";
  const asked = async (): Promise<unknown> => {
    switch (kind) {
      case "rotate":
        return done(did, "device.token.rotate", { deviceId });
      case "revoke":
        return done(did, "device.token.revoke", { deviceId });
      case "remove":
        return done(did, "device.pair.remove", { deviceId });
      case "shared":
        return done(did, "shared.auth.rotate");
      case "agent":
        return done(did, "test.end", { jti });
      case "rekey":
        return done(did, "test.end", { jti, keepJti: newUlid(Date.now()) });
      case "itself":
        return done(target, "device.token.rotate", { deviceId });
    }
  };
  return asked().then(
    () => true,
    () => false,
  );
}

const marksOf = (did: AgentDid): Promise<string[]> =>
  runInDurableObject(gateStub(did), (_gate, { storage }) =>
    storage.sql
      .exec<{ body: string }>("SELECT body FROM outbound WHERE body IS NOT NULL")
      .toArray()
      .map(({ body }) => body),
  );

type Tally = {
  histories: number;
  asked: number;
  rows: number;
  messages: number;
  acknowledged: number;
  refusedAfter: number;
};

async function play(taken: History, tally: Tally): Promise<void> {
  const parties = await gather(taken.kind);
  const { did, target, bystander, authority, epoch } = parties;
  const lines = await Promise.all(
    Array.from({ length: target.kind === "agent" ? 1 : taken.sockets }, () => open(target)),
  );
  const mark = crypto.randomUUID();
  const ask = (index: number, by: string) => ({
    mark: `${mark} ${by} ${index}`,
    authority,
    waitMs: taken.waitMs,
    careless: index % 4 < taken.careless,
  });

  const requests: Promise<unknown>[] = [];
  const others: Promise<unknown>[] = [];
  let acknowledged: Promise<boolean> | null = null;
  for (let index = 0; index < taken.burst; index += 1) {
    if (index === taken.endAt % taken.burst) {
      acknowledged = end(parties, taken.kind);
    }
    const line = lines[index % lines.length]!;
    if (line.socket.readyState === WebSocket.OPEN)
      line.say({ type: "req", method: "test.effect", params: ask(index, "old") });
    if (index % 3 === 0) requests.push(call(target, "test.effect", ask(index, "old")).catch(() => null));
    if (index % 5 === 0 && bystander !== null)
      others.push(call(bystander, "test.effect", ask(index, "other")).catch(() => null));
    // oxlint-disable-next-line no-await-in-loop -- a turn of the event loop, so that some of it is under way
    if (index % 4 === 0) await rest(0);
    tally.asked += 1;
  }
  if (taken.after === "crash amid") await crashGate(did);
  const isOver = await acknowledged;

  if (taken.after === "crash") await crashGate(did);
  if (taken.after === "evict") await evictDurableObject(gateStub(did)).catch(() => undefined);
  if (isOver === true) {
    tally.acknowledged += 1;
    const late = lines.map((line) =>
      line.socket.readyState === WebSocket.OPEN
        ? line.say({ type: "req", method: "test.effect", params: ask(-1, "late") })
        : "",
    );
    await gateStub(did).notify({ fromAgentDid: null, payload: JSON.stringify({ mark: `${mark} secret` }) });
    const again = await call(target, "test.effect", ask(-2, "late"));
    expect(again, taken.kind).not.toMatchObject({ ok: true });
    expect(await dial(did, { caller: await callerOf(target) })).toBe(401);
    await rest(5);
    for (const [index, line] of lines.entries()) {
      expect(
        line.frames.filter((frame) => JSON.stringify(frame).includes("secret")),
        "handed out after the answer",
      ).toEqual([]);
      expect(
        line.frames.filter((frame) => frame["id"] === late[index] && frame.type === "res"),
        "answered after the answer",
      ).toEqual([]);
    }
    tally.refusedAfter += 2 + lines.length;
  }
  await Promise.all(requests);
  const outcomes = await Promise.all(others);
  if (!taken.after.startsWith("crash"))
    for (const outcome of outcomes) expect(outcome, "of a bystander").toMatchObject({ ok: true });

  const { results } = await env.DB.prepare("SELECT mark, raised FROM effects_of_test WHERE mark LIKE ?1")
    .bind(`${mark}%`)
    .all<{ mark: string; raised: number }>();
  const messages = (await marksOf(did)).filter((body) => body.includes(mark));
  if (isOver === true) {
    expect(results.filter((row) => row.mark.includes("late"))).toEqual([]);
    expect(messages.filter((body) => body.includes("late"))).toEqual([]);
  }
  // Whatever was written under the old authority was written before its epoch rose, and that was before the answer.
  expect(results.filter((row) => row.mark.includes("old") && row.raised > epoch)).toEqual([]);
  tally.histories += 1;
  tally.rows += results.length;
  tally.messages += messages.length;
}

describe("the object", () => {
  test(
    "lets nothing through after an end that it has answered, whatever was under way and whatever befalls it",
    { timeout: 300_000 },
    async () => {
      const seed = Math.floor(Math.random() * 2 ** 31);
      const tally: Tally = { histories: 0, asked: 0, rows: 0, messages: 0, acknowledged: 0, refusedAfter: 0 };
      await holds(
        asyncProperty(history, (taken) => play(taken, tally)),
        { numRuns: HISTORIES, seed, endOnFailure: true },
      );
      console.log(`seed ${seed}: ${JSON.stringify(tally)}`);
      expect(tally.acknowledged).toBeGreaterThan(HISTORIES / 2);
      expect(tally.rows).toBeGreaterThan(HISTORIES);
    },
  );

  test("goes on for a device that was rotated once it has claimed its new token", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay", "send", "tasks:write"]);
    await done(agent.did, "device.token.rotate", { deviceId: device.deviceId });
    const renewed = await claimed(device);
    const line = await open(renewed);
    expect(
      await call(renewed, "test.effect", { mark: "renewed", authority: "", waitMs: 0, careless: false }),
    ).toMatchObject({ ok: true });
    line.socket.close();
  });
});
