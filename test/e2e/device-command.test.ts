/** The device commands against the real program: pairing, use, rotation and the end, as people type it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
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
type Requested = { requestId: string; deviceId: string; digest: string; publicKey: string; file: string };
type Listed = {
  pending: { deviceId: string }[];
  paired: { deviceId: string; status: string; scopes: string[]; label: string | null; nameHere: string | null }[];
};

async function newMachine(): Promise<Runner> {
  const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN });
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann"]);
  return runner;
}

/** A machine with an agent that trusts another one, and a device that is paired and has its token. */
async function setUp(scopes = "relay,send") {
  const runner = await newMachine();
  const alice = ((await runner.json(["agent", "register", "alice"])) as Registered).agentDid;
  const bob = ((await runner.json(["agent", "register", "bob"])) as Registered).agentDid;
  const { ticket } = (await runner.json(["pair", "start", "--agent", "alice"])) as { ticket: string };
  await runner.json(["pair", "confirm", ticket, "--agent", "bob"]);
  const requested = (await runner.json(["device", "request", "phone", "--scopes", scopes])) as Requested;
  await runner.json(["device", "approve", "phone", "--digest", requested.digest]);
  await runner.json(["device", "claim", "phone"]);
  const stored = async () => JSON.parse(await readFile(requested.file, "utf8")) as { token: string | null };
  const list = async () => (await runner.json(["device", "list"])) as Listed;
  return { runner, alice, bob, ...requested, stored, list };
}

/** Runs a command that goes on, as a process of its own. */
function start(
  runner: Runner,
  args: string[],
): { child: ChildProcess; next(): Promise<unknown>; ended: Promise<{ code: number | null; err: string }> } {
  const child = spawn(PROGRAM, [...args, "--json"], {
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

describe("pairing a device", () => {
  test("goes from a request to a token that is in a file for its owner alone", async () => {
    const runner = await newMachine();
    await runner.json(["agent", "register", "alice"]);
    const requested = (await runner.json(["device", "request", "phone", "--label", "Ann's phone"])) as Requested;
    const list = (await runner.json(["device", "list"])) as Listed;
    expect(list).toMatchObject({ pending: [{ deviceId: requested.deviceId, label: "Ann's phone" }], paired: [] });

    expect(await runner.run(["device", "approve", "phone"])).toMatchObject({
      code: 2,
      err: expect.stringContaining(requested.digest) as string,
    });
    expect(await runner.run(["device", "approve", "phone", "--digest", "A".repeat(43)])).toMatchObject({
      code: 4,
      err: expect.stringContaining("DIGEST_DIFFERS") as string,
    });
    expect(await runner.run(["device", "claim", "phone"])).toMatchObject({
      code: 5,
      err: expect.stringContaining("device approve") as string,
    });
    const approved = await runner.json(["device", "approve", requested.requestId, "--digest", requested.digest]);
    expect(approved).toMatchObject({ deviceId: requested.deviceId, scopes: ["relay", "send"], epoch: 1 });

    const claimed = await runner.run(["device", "claim", "phone"]);
    const { token } = JSON.parse(await readFile(requested.file, "utf8")) as { token: string };
    expect(token).toMatch(/^spd_/);
    expect(claimed.out + claimed.err).not.toContain(token);
    expect((await stat(requested.file)).mode & 0o777).toBe(0o600);
    expect(await runner.run(["device", "claim", "phone"])).toMatchObject({
      code: 4,
      err: expect.stringContaining("the last") as string,
    });
    expect(await runner.json(["device", "list", "--device", "phone"])).toMatchObject({
      paired: [{ deviceId: requested.deviceId, status: "active", nameHere: "phone" }],
    });
  });

  test("works for a device on a machine without the agent", async () => {
    const [home, elsewhere] = [await newMachine(), await newInnerRunner({ SALLYPORT_URL: proxy.url })];
    const { agentDid } = (await home.json(["agent", "register", "alice"])) as Registered;
    const key = (await elsewhere.json(["device", "key", "tablet", "--of", agentDid])) as Requested;
    const asked = ["device", "request", "tablet", "--public-key", key.publicKey];
    const requested = (await home.json(asked)) as Requested;
    expect(requested).toMatchObject({ deviceId: key.deviceId, file: null });
    await home.json(["device", "approve", key.deviceId, "--of", agentDid, "--digest", requested.digest]);
    expect(await elsewhere.json(["device", "claim", "tablet"])).toMatchObject({ deviceId: key.deviceId });
  });

  test("is turned down, and asked for again with the same key or another", async () => {
    const runner = await newMachine();
    await runner.json(["agent", "register", "alice"]);
    const ask = async (...more: string[]) => (await runner.json(["device", "request", "phone", ...more])) as Requested;
    const first = await ask();
    expect(await ask("--scopes", "relay")).toMatchObject({ deviceId: first.deviceId, requestId: first.requestId });
    await runner.json(["device", "reject", "phone"]);
    expect(await runner.run(["device", "approve", "phone", "--digest", first.digest])).toMatchObject({
      code: 4,
      err: expect.stringContaining("NO_REQUEST") as string,
    });
    expect((await ask("--new-key")).deviceId).not.toBe(first.deviceId);
    expect((await runner.run(["device", "request", "phone", "--scopes", "all"])).code).toBe(2);
  });

  test("is approved by a device that may, for no more than it holds", async () => {
    const { runner } = await setUp("relay,devices");
    const ask = async (name: string, scopes: string) =>
      (await runner.json(["device", "request", name, "--scopes", scopes])) as Requested;
    const small = await ask("small", "relay");
    expect(
      await runner.json(["device", "approve", "small", "--digest", small.digest, "--device", "phone"]),
    ).toMatchObject({ scopes: ["relay"] });
    const large = await ask("large", "relay,send");
    expect(
      await runner.run(["device", "approve", "large", "--digest", large.digest, "--device", "phone"]),
    ).toMatchObject({ code: 4, err: expect.stringContaining("operator") as string });
  });
});

describe("a device", () => {
  test("sends and listens beside its agent", async () => {
    const { runner, alice, bob } = await setUp();
    const { deliveryId } = (await runner.json(["send", "bob", "--text", "hi", "--device", "phone"])) as {
      deliveryId: string;
    };
    const atBob = start(runner, ["listen", "--agent", "bob", "--count", "1"]);
    expect(await atBob.next()).toMatchObject({ message: { deliveryId, fromAgentDid: alice, payload: { text: "hi" } } });
    // The first is what alice was told of the pairing.
    const atPhone = start(runner, ["listen", "--device", "phone", "--count", "2"]);
    expect(await atPhone.next()).toMatchObject({ message: { fromAgentDid: null } });
    const sent = (await runner.json(["send", "alice", "1", "--agent", "bob"])) as { deliveryId: string };
    expect(await atPhone.next()).toMatchObject({ message: { deliveryId: sent.deliveryId, fromAgentDid: bob } });
    expect((await atPhone.ended).code).toBe(0);
    expect((await runner.run(["send", "bob", "1", "--device", "phone", "--wait", "1"])).code).toBe(2);
  });

  test("that is rotated by its agent is told to claim, and goes on after it", async () => {
    const { runner, bob, deviceId, stored } = await setUp();
    const before = await stored();
    const atPhone = start(runner, ["listen", "--device", "phone"]);
    await runner.json(["send", "alice", "1", "--agent", "bob"]);
    await atPhone.next();
    expect(await runner.json(["device", "rotate", "phone"])).toMatchObject({
      deviceId,
      tokenDelivery: "claim",
      fenced: { sockets: 1 },
    });
    const ended = await atPhone.ended;
    expect(ended.code).toBe(5);
    expect(JSON.parse(ended.err)).toMatchObject({
      error: { code: "CREDENTIAL_ENDED", advice: expect.stringContaining("device claim phone") as string },
    });
    expect(await runner.run(["send", bob, "1", "--device", "phone"])).toMatchObject({
      code: 5,
      err: expect.stringContaining("CLIENT_INVALIDATED") as string,
    });
    await runner.json(["device", "claim", "phone"]);
    expect((await stored()).token).not.toBe(before.token);
    expect(await runner.json(["send", bob, "1", "--device", "phone"])).toMatchObject({ accepted: true });
  });

  test("rotates itself to fewer scopes, and never to more", async () => {
    const { runner, bob, stored, list } = await setUp();
    const before = await stored();
    expect(await runner.json(["device", "rotate", "--device", "phone", "--scopes", "send"])).toMatchObject({
      scopes: ["send"],
      epoch: 2,
    });
    const after = await stored();
    expect(after.token).toMatch(/^spd_/);
    expect(after.token).not.toBe(before.token);
    expect(await runner.json(["send", bob, "1", "--device", "phone"])).toMatchObject({ accepted: true });
    const wider = await runner.run(["device", "rotate", "phone", "--device", "phone", "--scopes", "relay,send"]);
    expect(wider.code).toBe(4);
    expect(await stored()).toEqual(after);
    await runner.json(["device", "rename", "phone", "telephone", "--device", "phone"]);
    expect((await list()).paired).toMatchObject([{ label: "telephone", scopes: ["send"], status: "active" }]);
  });

  test("is revoked twice with one answer and not rotated any more; removed, it is forgotten here too", async () => {
    const { runner, deviceId, stored, list, file } = await setUp();
    expect((await runner.run(["device", "revoke", "phone"])).code).toBe(2);
    const first = await runner.json(["device", "revoke", "phone", "--yes"]);
    expect(await runner.json(["device", "revoke", deviceId, "--yes", "--operator"])).toMatchObject({
      revokedAtMs: (first as { revokedAtMs: number }).revokedAtMs,
    });
    expect((await list()).paired).toMatchObject([{ deviceId, status: "revoked" }]);
    expect((await stored()).token).toBeNull();
    expect(await runner.run(["listen", "--device", "phone"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("NO_TOKEN") as string,
    });
    expect(await runner.run(["device", "rotate", "phone"])).toMatchObject({
      code: 4,
      err: expect.stringContaining("pair it anew") as string,
    });
    await runner.json(["device", "remove", "phone", "--yes"]);
    expect(await list()).toMatchObject({ pending: [], paired: [] });
    await expect(stat(file)).rejects.toMatchObject({ code: "ENOENT" });
    expect((await runner.run(["device", "rotate", deviceId])).code).toBe(4);
  });
});

test("the shared secret is shown once, or written for its owner alone", async () => {
  const runner = await newMachine();
  await runner.json(["agent", "register", "alice"]);
  expect((await runner.run(["shared", "rotate"])).code).toBe(2);
  expect(await runner.json(["shared", "rotate", "--yes"])).toMatchObject({
    generation: 1,
    secret: expect.stringMatching(/^sps_/) as string,
  });
  const file = join(await temporaryFolder(), "secret");
  const second = await runner.json(["shared", "rotate", "--yes", "--secret-file", file, "--operator"]);
  expect(second).toMatchObject({ generation: 2, file });
  expect(second).not.toHaveProperty("secret");
  expect(await readFile(file, "utf8")).toMatch(/^sps_.{43}\n$/);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect((await runner.run(["shared", "rotate", "--yes", "--secret-file", file])).code).toBe(2);
  await writeFile(file, "");
});

test("the operator sees what was done, page by page, and who trusts whom", async () => {
  const { runner, alice, bob, deviceId } = await setUp();
  await runner.json(["device", "rotate", "phone"]);
  const subject = `device:${alice}/${deviceId}`;
  type Audit = { entries: { id: string; action: string; actor: string; subject: string }[]; nextCursor: string | null };
  const audit = async (...more: string[]) => (await runner.json(["audit", "--subject", subject, ...more])) as Audit;
  await expect
    .poll(async () => (await audit()).entries.map(({ action }) => action), { timeout: 10_000 })
    .toEqual(["device.token.rotate", "device.token.claim", "device.pair.approve", "device.pair.request"]);
  const whole = (await audit()).entries.map(({ id }) => id);
  const first = await audit("--limit", "2");
  const rest = await audit("--cursor", first.nextCursor ?? "");
  expect([...first.entries, ...rest.entries].map(({ id }) => id)).toEqual(whole);
  expect(rest.nextCursor).toBeNull();
  expect((await audit("--action", "device.pair.approve")).entries).toMatchObject([{ actor: "operator" }]);

  type Trust = { pairs: { agentDid: string; peerAgentDid: string }[] };
  const ours = async () =>
    ((await runner.json(["trust", "list"])) as Trust).pairs.filter(
      ({ agentDid, peerAgentDid }) => [alice, bob].includes(agentDid) && [alice, bob].includes(peerAgentDid),
    );
  expect(await ours()).toHaveLength(1);
  expect(await runner.json(["trust", "remove", "alice", bob, "--yes"])).toMatchObject({ removed: true });
  expect(await ours()).toEqual([]);
  expect(await runner.json(["trust", "remove", "alice", bob, "--yes"])).toMatchObject({ removed: false });
});
