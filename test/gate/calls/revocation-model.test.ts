/**
 * The revocation guarantee over random histories. The seed is printed; a failure names the shortest history that shows it.
 * Every run tries some; before a release, and after any change to the gate, `npm run histories` tries as many as the guarantee is
 * held to.
 */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { array, asyncProperty, check, constant, nat, oneof, record } from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { LEASES_OVER_MS } from "../../../src/operators/lease.ts";
import { violations } from "./revocation-checker.ts";
import { createWorld, type Credential, START_MS, type Weakness, type World } from "./revocation-simulator.ts";

const HISTORIES = Number(env.HISTORIES || 500);
const AT_ONCE = 500;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"], now: START_MS });
  // A proof is of no interest here and costs a hundred times what everything else does: whoever knows the token has the key.
  vi.spyOn(crypto.subtle, "verify").mockResolvedValue(true);
  vi.spyOn(crypto.subtle, "importKey").mockResolvedValue({} as CryptoKey);
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const PLANS: readonly string[][] = [
  [],
  ["local"],
  ["d1"],
  ["wait", "assert", "local"],
  ["wait", "assert", "d1"],
  // A handler that forgets to look again: the fence that its batch was begun with must hold it.
  ["wait", "d1"],
  ["d1", "wait", "local", "d1"],
];

const STEPS = {
  connect: 4,
  request: 4,
  say: 6,
  enqueue: 4,
  enqueueInGroup: 4,
  heartbeat: 1,
  deliver: 2,
  deliverInGroup: 2,
  leaveGroup: 1.5,
  removeFromGroup: 1,
  joinGroup: 2,
  rotate: 2,
  revoke: 1,
  remove: 1,
  rotateItself: 2,
  rotateByDevice: 1,
  rotateShared: 2,
  revokeAgent: 0.3,
  rekeyAgent: 0.6,
  claim: 3,
  makeKey: 4,
  makeKeyOverSocket: 1,
  endKey: 1,
  makeTicket: 2,
  operatorRequest: 2,
  makeInvite: 1.5,
  useInvite: 2,
  revokeOperator: 3.5,
  leaseTime: 1.5,
  tick: 12,
  release: 16,
  releaseWithFault: 1,
  drainTime: 1,
  settle: 2,
  crash: 1,
  evict: 1,
} as const;

type Step = { step: keyof typeof STEPS; a: number; b: number };

const step = record({
  step: oneof(
    ...(Object.entries(STEPS) as [Step["step"], number][]).map(([name, weight]) => ({
      weight: Math.round(weight * 10),
      arbitrary: constant(name),
    })),
  ),
  a: nat(1_000),
  b: nat(1_000),
});
const steps = array(step, { minLength: 10, maxLength: 40, size: "max" });

function take(world: World, { step: name, a, b }: Step): void {
  const credential = world.credentials[a % world.credentials.length]!;
  const sockets = world.sockets();
  const socket = sockets[a % Math.max(1, sockets.length)];
  const deviceId = world.deviceIds[a % world.deviceIds.length]!;
  const manager = world.credentials.findLast((each) => each.kind === "device" && each.deviceId === world.deviceIds[0]);
  const plan = PLANS[b % PLANS.length]!;
  const oneOf = (...kinds: Credential["kind"][]): Credential => {
    const found = world.credentials.filter(({ kind }) => kinds.includes(kind));
    return found[a % found.length]!;
  };
  const operator = world.credentials.filter((each) => each.kind === "operator")[a % 2];
  switch (name) {
    case "connect":
      return world.connect(credential);
    case "request":
      return world.request(credential, plan);
    case "say":
      return socket === undefined ? undefined : world.say(socket, plan);
    case "enqueue":
      return socket === undefined ? undefined : world.enqueue(socket);
    case "enqueueInGroup":
      return socket === undefined ? undefined : world.enqueueInGroup(socket, b % 2 === 0);
    case "heartbeat":
      return socket === undefined ? undefined : world.heartbeat(socket);
    case "deliver":
      return world.deliver();
    case "deliverInGroup":
      return world.deliverInGroup();
    case "leaveGroup":
      return world.end(
        b % 2 === 0 || (credential.kind !== "agent" && credential.kind !== "device") ? null : credential,
        "test.leave",
        {},
        "group",
      );
    case "removeFromGroup":
      return world.removeFromGroup();
    case "joinGroup":
      return world.joinGroup();
    case "rotate":
      return world.end(null, "device.token.rotate", { deviceId }, `device ${deviceId}`);
    case "revoke":
      return world.end(null, "device.token.revoke", { deviceId }, `device ${deviceId}`);
    case "remove":
      return world.end(null, "device.pair.remove", { deviceId }, `device ${deviceId}`);
    case "rotateItself": {
      const own = credential.kind === "device" ? credential.deviceId : deviceId;
      const mine = sockets.find((each) => each.credential === credential.id);
      if (credential.kind === "device")
        world.end(
          b % 2 === 0 && mine !== undefined ? mine : credential,
          "device.token.rotate",
          { deviceId: own },
          `device ${own}`,
        );
      return undefined;
    }
    case "rotateByDevice":
      return manager === undefined
        ? undefined
        : world.end(manager, "device.token.revoke", { deviceId: world.deviceIds[1] }, `device ${world.deviceIds[1]}`);
    case "rotateShared":
      return world.end(null, "shared.auth.rotate", {}, "shared");
    case "revokeAgent":
      return world.end(null, "test.end", {}, "agent");
    case "rekeyAgent":
      return world.rekey();
    case "makeKey":
      // A shared secret makes none; of a key another one comes.
      return world.derive(oneOf("agent", "device", "apiKey"), "test.key");
    case "makeKeyOverSocket":
      return socket === undefined ? undefined : world.derive(socket, b % 2 === 0 ? "test.key" : "test.ticket");
    case "makeTicket":
      return world.derive(oneOf("agent", "device", "shared"), "test.ticket");
    case "operatorRequest":
      return operator === undefined ? undefined : world.request(operator, plan);
    case "makeInvite":
      return operator === undefined ? undefined : world.derive(operator, "test.invite");
    case "useInvite": {
      const invites = world.credentials.filter((each) => each.kind === "invite");
      const invite = invites[b % Math.max(1, invites.length)];
      return invite === undefined ? undefined : world.useInvite(invite);
    }
    case "revokeOperator":
      return operator?.kind === "operator"
        ? world.end(null, "operator/revoke", { operatorId: operator.operatorId }, `operator ${operator.operatorId}`)
        : undefined;
    case "leaseTime":
      return world.pass(LEASES_OVER_MS);
    case "endKey": {
      const keys = world.credentials.filter((each) => each.kind === "apiKey");
      const key = keys[b % Math.max(1, keys.length)];
      if (key === undefined) return undefined;
      const { apiKeyId } = key.grant.principal;
      return world.end(null, "test.endKey", { apiKeyId }, `key ${apiKeyId}`);
    }
    case "claim":
      return world.claim(deviceId);
    case "tick":
      return world.pass(1);
    case "release":
    case "releaseWithFault":
      return world.waiting() === 0 ? undefined : world.release(a, name === "releaseWithFault");
    case "settle":
      return undefined;
    case "drainTime":
      return world.pass(5_001);
    case "crash":
      return world.crash();
    case "evict":
      return world.evict();
  }
}

/** Everything that is under way comes to its end, in some order. */
async function finish(world: World, order: number): Promise<void> {
  for (let rounds = 0; rounds < 200 && (world.waiting() > 0 || vi.getTimerCount() > 0); rounds += 1) {
    // D1 is faster than the timers that wait for it.
    for (let released = 0; released < 12 && world.waiting() > 0; released += 1) {
      world.release(order, false);
      // oxlint-disable-next-line no-await-in-loop
      await world.turn();
    }
    vi.advanceTimersToNextTimer();
    // oxlint-disable-next-line no-await-in-loop
    await world.turn();
  }
}

type Tally = {
  steps: number;
  ends: number;
  acknowledged: number;
  effects: number;
  /** Messages of the agent in its group, and to it. */
  inGroup: number;
  /** Ends of operators' keys that were acknowledged. */
  operatorsEnded: number;
  /** What was done, or refused, under a key or a ticket that another credential had made. */
  derived: number;
  accepted: number;
  refused: number;
  crashes: number;
  evictions: number;
};

async function play(
  storage: DurableObjectStorage,
  taken: readonly Step[],
  weakness: Weakness | null,
  tally: Tally | null,
): Promise<string[]> {
  const world = await createWorld(storage, weakness);
  for (const each of taken) {
    // It sleeps only when nothing is under way.
    // oxlint-disable-next-line no-await-in-loop
    if (each.step === "evict" || each.step === "settle") await finish(world, each.a);
    take(world, each);
    // oxlint-disable-next-line no-await-in-loop
    await world.turn();
  }
  // What is over stays over after a crash, also for what arrives late; what is in order is still let in.
  world.crash();
  await finish(world, taken.length);
  for (const credential of world.credentials.slice()) {
    // What a key of an operator does in D1 is fenced besides: what it does here tells whether anybody looks.
    world.request(credential, [credential.kind === "operator" ? "local" : "d1"]);
    world.connect(credential);
    world.useInvite(credential);
  }
  await finish(world, 0);
  if (world.faults.length > 0) throw world.faults[0];
  if (tally !== null) {
    tally.steps += taken.length;
    const ofOperators = world.history.flatMap((event) =>
      event.kind === "end-asked" && event.target.startsWith("operator ") ? [event.end] : [],
    );
    for (const event of world.history) {
      if (event.kind === "end-answered" && event.ok && ofOperators.includes(event.end)) tally.operatorsEnded += 1;
      if ("credential" in event && event.kind !== "issued" && event.credential.startsWith("stay")) tally.inGroup += 1;
      if ("credential" in event && event.kind !== "issued" && /^(key|ticket|invite) /.test(event.credential))
        tally.derived += 1;
      if (event.kind === "end-asked") tally.ends += 1;
      else if (event.kind === "end-answered" && event.ok) tally.acknowledged += 1;
      else if (event.kind === "effect") tally.effects += 1;
      else if (event.kind === "accepted") tally.accepted += 1;
      else if (event.kind === "refused") tally.refused += 1;
      else if (event.kind === "crash") tally.crashes += 1;
      else if (event.kind === "eviction") tally.evictions += 1;
    }
  }
  const found = violations(world.history);
  return found.length === 0 ? found : [...found, ...world.history.map((event, at) => `${at} ${JSON.stringify(event)}`)];
}

/** @returns the shortest history that breaks the guarantee, or null */
async function search(
  histories: number,
  seed: number,
  weakness: Weakness | null,
  tally: Tally | null,
): Promise<string | null> {
  for (let done = 0; done < histories; done += AT_ONCE) {
    // oxlint-disable-next-line no-await-in-loop -- a new object each time, so that none grows without bound
    const failure = await runInDurableObject(
      env.GATE.getByName(`histories ${crypto.randomUUID()}`),
      async (_gate, { storage }) => {
        const result = await check(
          asyncProperty(steps, async (taken) => {
            const found = await play(storage, taken, weakness, tally);
            if (found.length > 0) throw new Error(found.join("\n"));
          }),
          {
            numRuns: Math.min(AT_ONCE, histories - done),
            seed: seed + done,
            endOnFailure: weakness !== null,
            interruptAfterTimeLimit: undefined as never,
          },
        );
        if (!result.failed) return null;
        return `seed ${seed + done}, path ${result.counterexamplePath}\n${JSON.stringify(result.counterexample)}\n${String(result.errorInstance)}`;
      },
    );
    if (failure !== null) return failure;
  }
  return null;
}

describe("whatever happens in whatever order", () => {
  test(
    "an end that was answered is the end, nothing valid is refused before, and no crash undoes it",
    { timeout: 3_600_000 },
    async () => {
      const seed = Math.floor(Math.random() * 2 ** 31);
      const tally: Tally = {
        steps: 0,
        ends: 0,
        acknowledged: 0,
        effects: 0,
        inGroup: 0,
        derived: 0,
        operatorsEnded: 0,
        accepted: 0,
        refused: 0,
        crashes: 0,
        evictions: 0,
      };
      const failure = await search(HISTORIES, seed, null, tally);
      console.log(`${HISTORIES} histories, seed ${seed}: ${JSON.stringify(tally)}`);
      expect(failure).toBeNull();
      // A search that nothing happens in finds nothing.
      for (const count of Object.values(tally)) expect(count).toBeGreaterThan(HISTORIES / 10);
    },
  );

  test.each<[string, Weakness]>([
    ["nobody looks at the authority at that moment", "no-look"],
    ["D1 takes batches of any epoch and nobody waits for calls in flight", "no-fence-in-d1"],
    ["an end is forgotten in a crash", "no-disk"],
    ["an operator's key holds for ever", "no-operator-end"],
    ["a key does not know what it descends from", "no-lineage"],
    ["no gate is notified of who goes from a group", "no-group-fence"],
  ])("the checker notices when %s", { timeout: 120_000 }, async (_what, weakness) => {
    expect(await search(3_000, 7, weakness, null)).toMatch(/which is over since|nobody had asked for/);
  });
});
