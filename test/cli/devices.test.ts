import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { deviceIdOf, pairingDigest } from "../../src/client/index.ts";
import { newInnerRunner, type Runner, temporaryFolder } from "./program.ts";
import { type Answering, PEER_DID, problem, type Seen, startRegistry, TOKEN } from "./registry-server.ts";

type Rpc = { method: string; params: Record<string, unknown> };
type Answers = Record<string, (params: Record<string, unknown>) => unknown>;

const rpcOf = ({ body }: Seen): Rpc => JSON.parse(body) as Rpc;
const REQUEST_ID = "01K9ZJ8Q6V3N5T7W2X4Y6Z8A0D";
const refusal = (code: string, number: number, data: object = {}) => ({
  error: { code: number, message: `says ${code}`, data: { code, ...data } },
});

/** A server that answers the device methods from what was asked of it, unless the test says otherwise. */
async function setUp(answers: Answers = {}, override: Answering = () => undefined) {
  let pending: Record<string, unknown> | null = null;
  const usual: Record<string, (params: Record<string, unknown>) => unknown> = {
    "device.pair.request": async (params) => {
      const { publicKey, label, scopes } = params as { publicKey: string; label: string; scopes: string[] };
      const shown = { publicKey, label, scopes };
      const digest = await pairingDigest(shown);
      const deviceId = await deviceIdOf(publicKey);
      const issued = { requestId: REQUEST_ID, deviceId, digest, expiresAtMs: Date.now() + 300_000 };
      pending = { ...shown, ...issued };
      return { result: issued };
    },
    "device.pair.list": () => ({ result: { pending: pending === null ? [] : [pending], paired: [] } }),
    "device.pair.approve": () => ({ result: { deviceId: "D".repeat(22), scopes: ["relay"], epoch: 1 } }),
    ...answers,
  };
  const registry = await startRegistry(async (seen) => {
    const own = override(seen);
    if (own !== undefined || seen.path !== "/rpc") return own;
    const { method, params } = rpcOf(seen);
    const answer = await (usual[method] ?? (() => refusal("PROXY_NOT_FOUND", -32004)))(params);
    return { json: { jsonrpc: "2.0", id: 1, ...(answer as object) } };
  });
  const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: TOKEN });
  await runner.json(["init", "--url", registry.url, "--human-name", "Ann", "--no-check"]);
  await runner.json(["agent", "register", "Scout"]);
  const rpcs = (): string[] => registry.seen.filter(({ path }) => path === "/rpc").map((each) => rpcOf(each).method);
  return { ...registry, runner, rpcs, file: join(runner.home, "devices/phone.json") };
}

const request = async (runner: Runner, ...more: string[]) =>
  (await runner.json(["device", "request", "phone", ...more])) as { digest: string; deviceId: string };

/** Gives the device of the file a token, as a claim would. */
async function giveToken(file: string): Promise<void> {
  const stored = JSON.parse(await readFile(file, "utf8")) as object;
  await writeFile(file, JSON.stringify({ ...stored, token: "spd_token", scopes: ["relay"] }));
}

describe("device request", () => {
  test("keeps the private key here, for its owner alone, and sends the public half", async () => {
    const { runner, file, seen } = await setUp();
    await request(runner);
    const { keys } = JSON.parse(await readFile(file, "utf8")) as { keys: { x: string; d: string } };
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(rpcOf(seen.at(-1) ?? never()).params).toMatchObject({ publicKey: keys.x, label: "phone" });
    expect(seen.map(({ body }) => body).join()).not.toContain(keys.d);
  });

  test("that was not answered is made again with the same key", async () => {
    let isDown = true;
    const { runner, file } = await setUp({}, ({ path }) =>
      path === "/rpc" && isDown ? problem(503, "PROXY_AUTH_DEPENDENCY_UNAVAILABLE") : undefined,
    );
    expect((await runner.run(["device", "request", "phone"])).code).toBe(6);
    const before = await readFile(file, "utf8");
    isDown = false;
    await request(runner);
    expect(await readFile(file, "utf8")).toBe(before);
    await request(runner, "--new-key");
    expect(await readFile(file, "utf8")).not.toBe(before);
  });

  test.each(["../phone", ".phone", "a/b"])("takes no name that is a path, like %s", async (name) => {
    const { runner, rpcs } = await setUp();
    expect((await runner.run(["device", "request", name])).code).toBe(2);
    expect(rpcs()).toEqual([]);
  });

  test("does not take a device of another agent for its own", async () => {
    const { runner } = await setUp();
    await runner.json(["device", "key", "phone", "--of", PEER_DID]);
    expect(await runner.run(["device", "request", "phone"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("NAME_TAKEN") as string,
    });
  });
});

describe("device approve", () => {
  test("shows key, scopes, label and digest, and approves by that digest alone", async () => {
    const { runner, rpcs, seen } = await setUp();
    const { digest } = await request(runner, "--label", "Ann's");
    const shown = await runner.run(["device", "approve", "phone"]);
    const key = (JSON.parse(await readFile(join(runner.home, "devices/phone.json"), "utf8")) as { keys: { x: string } })
      .keys.x;
    for (const part of [digest, "relay, send", "Ann's", key]) expect(shown.err).toContain(part);
    expect(shown.code).toBe(2);
    expect(rpcs()).not.toContain("device.pair.approve");
    await runner.json(["device", "approve", REQUEST_ID, "--digest", digest]);
    expect(rpcOf(seen.at(-1) ?? never())).toMatchObject({
      method: "device.pair.approve",
      params: { requestId: REQUEST_ID, digest },
    });
  });

  test("approves nothing whose digest stands for something else than what is shown", async () => {
    const digest = await pairingDigest({ publicKey: "k".repeat(43), label: "phone", scopes: ["relay"] });
    const shown = { requestId: REQUEST_ID, deviceId: "D".repeat(22), publicKey: "k".repeat(43), expiresAtMs: 1 };
    const { runner, rpcs } = await setUp({
      "device.pair.list": () => ({
        result: { pending: [{ ...shown, label: "phone", scopes: ["relay", "admin"], digest }], paired: [] },
      }),
    });
    expect(await runner.run(["device", "approve", REQUEST_ID, "--digest", digest])).toMatchObject({
      code: 4,
      err: expect.stringContaining("DIGEST_WRONG") as string,
    });
    expect(rpcs()).not.toContain("device.pair.approve");
  });

  test("acts by one authority", async () => {
    const { runner } = await setUp();
    const { digest } = await request(runner);
    const approve = ["device", "approve", "phone", "--digest", digest];
    expect((await runner.run([...approve, "--device", "phone", "--operator"])).code).toBe(2);
    expect((await runner.run([...approve, "--device", "phone"])).err).toContain("NO_TOKEN");
    expect((await runner.run([...approve, "--device", "tablet"])).err).toContain("NO_DEVICE");
  });
});

describe("a failure says what to do:", () => {
  test("an end that cannot be confirmed is to be asked for again", async () => {
    const { runner } = await setUp({
      "device.token.revoke": () => refusal("DRAIN_TIMEOUT", -32053, { retryable: true }),
    });
    await request(runner);
    expect(await runner.run(["device", "revoke", "phone", "--yes"])).toMatchObject({
      code: 6,
      err: expect.stringMatching(/DRAIN_TIMEOUT[^]*again/) as string,
    });
  });

  test("a token that has ended is claimed or paired anew", async () => {
    const { runner, file } = await setUp({}, ({ headers }) =>
      headers.authorization?.startsWith("Device ") === true ? problem(401, "PROXY_AUTH_CLIENT_INVALIDATED") : undefined,
    );
    await request(runner);
    await giveToken(file);
    for (const args of [["device", "list"], ["listen"], ["send", PEER_DID, "1"]]) {
      expect(await runner.run([...args, "--device", "phone"])).toMatchObject({
        code: 5,
        err: expect.stringMatching(/device claim[^]*device request/) as string,
      });
    }
  });

  test("a claim that was not answered may have been taken", async () => {
    const { runner } = await setUp({}, ({ path }) => (path === "/v1/devices/claim" ? { isLost: true } : undefined));
    await request(runner);
    expect(await runner.run(["device", "claim", "phone"])).toMatchObject({
      code: 6,
      err: expect.stringMatching(/Run it again[^]*device rotate phone/) as string,
    });
  });

  test("a device that is unknown is looked up", async () => {
    const { runner } = await setUp();
    expect((await runner.run(["device", "claim", "phone"])).code).toBe(3);
    expect(await runner.run(["device", "rotate", "phone"])).toMatchObject({
      code: 2,
      err: expect.stringContaining("device list") as string,
    });
    expect(await runner.run(["device", "rotate", "X".repeat(22)])).toMatchObject({
      code: 4,
      err: expect.stringContaining("device list") as string,
    });
    expect((await runner.run(["device", "rotate"])).code).toBe(2);
  });

  test("a file that others can read, or that is broken, is not used", async () => {
    const { runner, file } = await setUp();
    await request(runner);
    await chmod(file, 0o644);
    expect(await runner.run(["device", "claim", "phone"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("UNSAFE_PERMISSIONS") as string,
    });
    await chmod(file, 0o600);
    await writeFile(file, "{}");
    expect(await runner.run(["device", "claim", "phone"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("pair the device anew") as string,
    });
  });
});

test("a device that rotates itself keeps the new token, and one that is refused keeps the old", async () => {
  let isRefused = false;
  const rotated = { deviceId: "", scopes: ["relay"], epoch: 2, rotatedAtMs: 1, fenced: { sockets: 1, inFlight: 0 } };
  const { runner, file } = await setUp({
    "device.token.rotate": () =>
      isRefused
        ? refusal("PROXY_NOT_FOUND", -32004)
        : { result: { ...rotated, tokenDelivery: "in-band", token: "spd_2" } },
  });
  await request(runner);
  await giveToken(file);
  const ended = await runner.run(["device", "rotate", "--device", "phone"]);
  expect(ended).toMatchObject({ code: 0, out: expect.stringContaining("1 socket closed") as string });
  expect(ended.out).not.toContain("spd_2");
  const stored = JSON.parse(await readFile(file, "utf8")) as { token: string };
  expect(stored.token).toBe("spd_2");
  isRefused = true;
  expect((await runner.run(["device", "rotate", "--device", "phone"])).code).toBe(4);
  expect(JSON.parse(await readFile(file, "utf8"))).toEqual(stored);
});

test("a device that rotates itself and gets no answer claims its token, once, by its own key", async () => {
  const { runner, file, seen } = await setUp({}, ({ path, headers }) => {
    if (path === "/v1/devices/claim")
      return { json: { token: "spd_2", scopes: ["relay"], epoch: 2, expiresAtMs: Date.now() } };
    return path === "/rpc" && headers.authorization?.startsWith("Device ") === true ? { isLost: true } : undefined;
  });
  await request(runner);
  await giveToken(file);
  expect(await runner.json(["device", "rotate", "--device", "phone"])).toMatchObject({ epoch: 2, fenced: null });
  expect((JSON.parse(await readFile(file, "utf8")) as { token: string }).token).toBe("spd_2");
  expect(seen.filter(({ path }) => path === "/v1/devices/claim")).toHaveLength(1);
});

test("a shared secret that was not made leaves no file behind", async () => {
  const { runner } = await setUp({ "shared.auth.rotate": () => refusal("DRAIN_TIMEOUT", -32053, { retryable: true }) });
  const file = join(await temporaryFolder(), "secret");
  expect((await runner.run(["shared", "rotate", "--yes", "--secret-file", file])).code).toBe(6);
  await expect(stat(file)).rejects.toMatchObject({ code: "ENOENT" });
});

test("a shared secret is written to a file of its own, to its end, and a file that is there is left alone", async () => {
  const fenced = { sockets: 0, inFlight: 0 };
  const { runner, rpcs } = await setUp({
    "shared.auth.rotate": () => ({ result: { generation: 2, secret: "sps_secret", fenced } }),
  });
  const file = join(await temporaryFolder(), "secret");
  const rotate = ["shared", "rotate", "--yes", "--secret-file", file];
  const { out } = await runner.run(rotate);
  expect(out).not.toContain("sps_secret");
  expect(await readFile(file, "utf8")).toBe("sps_secret\n");
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect((await runner.run(rotate)).code).toBe(2);
  expect(await readFile(file, "utf8")).toBe("sps_secret\n");
  expect(rpcs()).toEqual(["shared.auth.rotate"]);
});

test("what stands in the audit log cannot colour the terminal", async () => {
  const entry = { id: "1", atMs: 1, actor: "agent:x", subject: null, agentDid: null, origin: null, requestId: null };
  const { runner } = await setUp({
    "audit/list": () => ({
      result: { entries: [{ ...entry, action: "a", result: "ok", details: { label: "\u001b[31m" } }] },
    }),
  });
  const { out } = await runner.run(["audit"]);
  expect(out).toContain(String.raw`label=\u001b[31m`);
  expect(out).not.toContain("\u001b");
});

function never(): never {
  throw new Error("nothing was asked");
}
