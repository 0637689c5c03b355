/** The command against the real program: what a newcomer types. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { newInnerRunner, PROGRAM, type Runner, temporaryFolder } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

type Registered = { agentDid: string };

/** A machine with two agents, each trusting the other. */
async function setUp(): Promise<{ runner: Runner; alice: string; bob: string }> {
  const runner = await newInnerRunner();
  const tokenFile = join(await temporaryFolder(), ".dev.vars");
  await writeFile(tokenFile, `OPERATOR_TOKEN="${OPERATOR_TOKEN}"\n`);
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann", "--operator-token-file", tokenFile]);
  const alice = (await runner.json(["agent", "register", "alice"])) as Registered;
  const bob = (await runner.json(["agent", "register", "bob"])) as Registered;
  const { ticket } = (await runner.json(["pair", "start", "--agent", "alice"])) as { ticket: string };
  expect(await runner.json(["pair", "status", ticket, "--agent", "alice"])).toEqual({ status: "pending" });
  expect(await runner.json(["pair", "confirm", "-", "--agent", "bob"], ticket)).toMatchObject({ paired: true });
  return { runner, alice: alice.agentDid, bob: bob.agentDid };
}

/** Runs `sallyport listen` as a process of its own. */
function listen(
  runner: Runner,
  agent: string,
  args: string[] = [],
): { child: ChildProcess; next(): Promise<unknown>; ended: Promise<{ code: number | null; err: string }> } {
  const child = spawn(PROGRAM, ["listen", "--agent", agent, "--json", ...args], {
    env: { PATH: process.env["PATH"] ?? "", HOME: runner.home, SALLYPORT_HOME: runner.home },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let err = "";
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    async next() {
      const { value } = (await lines.next()) as { value: string };
      return JSON.parse(value) as unknown;
    },
    ended: once(child, "close").then(([code]) => ({ code: code as number | null, err })),
  };
}

describe("a newcomer", () => {
  test("registers, pairs, sends and listens", async () => {
    const { runner, alice, bob } = await setUp();
    expect(await runner.json(["pair", "peers", "--agent", "alice"])).toMatchObject({
      peers: [{ agentDid: bob, agentName: "bob" }],
    });
    const sent = (await runner.json(["send", bob, "--text", "hello", "--conversation", "c"])) as { deliveryId: string };
    const listener = listen(runner, "bob", ["--count", "1"]);
    expect(await listener.next()).toMatchObject({
      message: { fromAgentDid: alice, payload: { text: "hello" }, conversationId: "c", deliveryId: sent.deliveryId },
    });
    expect((await listener.ended).code).toBe(0);
    await expect
      .poll(() => runner.json(["delivery", sent.deliveryId]), { timeout: 10_000 })
      .toMatchObject({ state: "delivered" });
    expect(await runner.json(["doctor"])).toMatchObject({ healthy: true });
  });

  test("gets a message's own text, to the byte", async () => {
    const { runner, bob } = await setUp();
    const payload = '{"id":12345678901234567890, "x":1e400,"y":-0,\n"z":1,"z":"\u202e"}';
    await runner.json(["send", bob, payload, "--conversation", "caf\u00e9"]);
    const child = spawn(PROGRAM, ["listen", "--agent", "bob", "--json", "--count", "1"], {
      env: { PATH: process.env["PATH"] ?? "", HOME: runner.home, SALLYPORT_HOME: runner.home },
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    const line = await text(child.stdout);
    expect(line).toContain(String.raw`"payload":{"id":12345678901234567890, "x":1e400,"y":-0, "z":1,"z":"\u202e"}`);
    expect(JSON.parse(line)).toMatchObject({
      message: { payloadText: payload, conversationId: "caf\u00e9" },
    });
  });

  test("whose output nobody reads any more has acknowledged what was read, and nothing else", async () => {
    const { runner, bob } = await setUp();
    const env = { PATH: process.env["PATH"] ?? "", HOME: runner.home, SALLYPORT_HOME: runner.home };
    const pipe = spawn("sh", ["-c", `"${PROGRAM}" listen --agent bob --json | head -n 1`], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
      detached: true,
    });
    onTestFinished(() => {
      if (pipe.pid !== undefined && pipe.exitCode === null) process.kill(-pipe.pid, "SIGKILL");
    });
    const ended = once(pipe, "close");
    const line = once(createInterface({ input: pipe.stdout }), "line") as Promise<[string]>;
    await runner.json(["send", bob, "1", "--wait", "15"]);
    const [read] = await line;
    expect(JSON.parse(read)).toMatchObject({ message: { payload: 1 } });
    const unread = (await runner.json(["send", bob, "2", "--wait", "1"])) as { deliveryId: string; state: string };
    expect(unread.state).toBe("queued");
    await ended;
    expect(await runner.json(["delivery", unread.deliveryId])).toMatchObject({ state: "queued" });
    const listener = listen(runner, "bob", ["--count", "1"]);
    expect(await listener.next()).toMatchObject({ message: { payload: 2, deliveryId: unread.deliveryId } });
    expect((await listener.ended).code).toBe(0);
  });

  test("is told why a message to a stranger is refused, and what to do", async () => {
    const { runner } = await setUp();
    const { agentDid } = (await runner.json(["agent", "register", "stranger"])) as Registered;
    const ended = await runner.run(["send", agentDid, "1"]);
    expect(ended).toMatchObject({ code: 4, err: expect.stringContaining("PROXY_AUTH_FORBIDDEN") as string });
    expect(ended.err).toContain("pair");
    expect(await runner.json(["pair", "remove", agentDid, "--yes"])).toMatchObject({ removed: false });
  });
});

test("agents that are in a group send to one, and to all, without pairing", async () => {
  const { runner, alice, bob } = await setUp();
  const { agentDid: carol } = (await runner.json(["agent", "register", "carol"])) as Registered;
  type Made = { groupId: string };
  type Token = { token: string };
  const { groupId } = (await runner.json(["group", "create", "research", "--agent", "alice"])) as Made;
  for (const member of ["bob", "carol"]) {
    const { token } = (await runner.json(["group", "invite", groupId, "--agent", "alice"])) as Token;
    await runner.json(["group", "join", "-", "--agent", member], token);
  }
  expect(await runner.json(["group", "show", groupId, "--agent", "carol"])).toMatchObject({
    name: "research",
    role: "member",
    members: [
      { agentDid: alice, role: "admin" },
      { agentDid: bob, role: "member" },
      { agentDid: carol, role: "member" },
    ],
  });
  const sent = (await runner.json(["send", groupId, "--text", "to all", "--agent", "carol"])) as {
    deliveries: { agentDid: string; deliveryId: string }[];
  };
  expect(sent.deliveries.map(({ agentDid }) => agentDid).toSorted()).toEqual([alice, bob].toSorted());
  const listener = listen(runner, "bob", ["--count", "2"]);
  expect(await listener.next()).toMatchObject({
    message: { fromAgentDid: carol, groupId, payload: { text: "to all" } },
  });
  await runner.json(["send", "bob", "1", "--group", groupId, "--agent", "carol"]);
  expect(await listener.next()).toMatchObject({ message: { fromAgentDid: carol, groupId, payload: 1 } });
  expect((await runner.run(["send", groupId, "1", "--wait", "1", "--agent", "carol"])).code).toBe(2);
  expect((await runner.run(["group", "leave", groupId, "--yes", "--agent", "alice"])).code).toBe(4);
  expect(await runner.json(["group", "remove", groupId, "carol", "--yes", "--agent", "alice"])).toMatchObject({
    removed: true,
  });
  expect((await runner.run(["send", groupId, "1", "--agent", "carol"])).code).toBe(4);
  expect(await runner.json(["group", "list", "--agent", "bob"])).toMatchObject({ groups: [{ groupId, members: 2 }] });
  expect(await runner.json(["group", "rename", groupId, "ours", "--agent", "alice"])).toEqual({
    groupId,
    name: "ours",
  });
  expect(await runner.json(["group", "delete", groupId, "--yes", "--agent", "alice"])).toMatchObject({ deleted: true });
  expect(await runner.json(["group", "list", "--agent", "bob"])).toEqual({ groups: [] });
});

test("what was refused is listed, replayed and thrown away", async () => {
  const { runner, alice } = await setUp();
  const refusing = listen(runner, "bob", ["--refuse", "not today"]);
  const send = () =>
    runner.json(["send", "bob", "--text", "x", "--wait", "10", "--agent", "alice"]) as Promise<{ deliveryId: string }>;
  const [one, two] = [await send(), await send()];
  type List = { deadLetters: { id: string; fromAgentDid: string; reason: string }[] };
  const list = () => runner.json(["dead-letters", "list", "--agent", "bob"]) as Promise<List>;
  await expect.poll(async () => (await list()).deadLetters.length, { timeout: 10_000 }).toBe(2);
  expect((await list()).deadLetters).toMatchObject([
    { id: two.deliveryId, fromAgentDid: alice, reason: "not today" },
    { id: one.deliveryId, fromAgentDid: alice, reason: "not today" },
  ]);
  refusing.child.kill("SIGINT");
  expect((await refusing.ended).code).toBe(0);

  expect(await runner.json(["dead-letters", "replay", one.deliveryId, "--agent", "bob"])).toEqual({
    replayed: [one.deliveryId],
  });
  expect(await runner.json(["dead-letters", "purge", "--all", "--yes", "--agent", "bob"])).toEqual({
    purged: [two.deliveryId],
  });
  const taking = listen(runner, "bob", ["--count", "1"]);
  expect(await taking.next()).toMatchObject({ message: { deliveryId: one.deliveryId } });
  expect(await list()).toEqual({ deadLetters: [] });
});

test("a re-keyed agent goes on, and a revoked one is over, its listener too", async () => {
  const { runner, alice, bob } = await setUp();
  await runner.json(["agent", "reissue", "--agent", "alice"]);
  await runner.json(["agent", "rekey", "alice", "--yes"]);
  expect(await runner.json(["pair", "peers", "--agent", "alice"])).toMatchObject({ peers: [{ agentDid: bob }] });
  const sent = (await runner.json(["send", "bob", "1", "--agent", "alice"])) as { deliveryId: string };
  const listener = listen(runner, "bob");
  expect(await listener.next()).toMatchObject({ message: { deliveryId: sent.deliveryId } });
  await runner.json(["agent", "revoke", "bob", "--reason", "test", "--yes"]);
  const ended = await listener.ended;
  expect(ended.code).toBe(5);
  expect(JSON.parse(ended.err)).toMatchObject({
    error: { code: "CREDENTIAL_ENDED", message: expect.stringContaining("agent revoked") as string },
  });
  const { agents } = (await runner.json(["agent", "list", "--all"])) as {
    agents: { agentDid: string; status: string }[];
  };
  const statusOf = (did: string): string | undefined => agents.find(({ agentDid }) => agentDid === did)?.status;
  expect([statusOf(alice), statusOf(bob)]).toEqual(["active", "revoked"]);
  expect((await runner.run(["doctor"])).code).toBe(7);
});
