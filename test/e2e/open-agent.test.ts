/** `openAgent` beside the command: one agent, one file, one lock; and through a proxy. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { createAgentClient, importKeys } from "../../src/client/index.ts";
import { openAgent } from "../../src/node/index.ts";
import { newRunner, type ProcessRunner } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { root } from "../support/program/bundle.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  // The name that a proxy leads to this machine, which no resolver knows.
  proxy = await startProxy({ PUBLIC_AUTHORITIES: "gate.invalid:8080" });
});
afterAll(() => proxy.stop());

type Stored = {
  keys: object;
  agentDid: string;
  ait: string;
  access: { token: string; expiresAtMs: number };
  refreshToken: string;
};

async function machine(): Promise<{
  runner: ProcessRunner;
  file: string;
  stored: () => Promise<Stored>;
  peerDid: string;
}> {
  const runner = await newRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN });
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann"]);
  for (const name of ["alice", "bob"]) await runner.json(["agent", "register", name]);
  const { ticket } = (await runner.json(["--agent", "alice", "pair", "start"])) as { ticket: string };
  await runner.json(["--agent", "bob", "pair", "confirm", ticket]);
  const file = join(runner.home, "agents/alice.json");
  const stored = async () => JSON.parse(await readFile(file, "utf8")) as Stored;
  const peerDid = (JSON.parse(await readFile(join(runner.home, "agents/bob.json"), "utf8")) as Stored).agentDid;
  return { runner, file, stored, peerDid };
}

/** A program that renews its credential again and again, as one that runs for weeks does. */
async function renewAgainAndAgain(home: string, times: number): Promise<number | null> {
  const program = `
    import { openAgent } from "${root}/src/node/index.ts";
    const agent = await openAgent("alice");
    for (let i = 0; i < ${times}; i += 1) {
      await agent.refresh();
      await agent.pairing.peers();
    }
    agent.close();`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
    env: { PATH: process.env["PATH"] ?? "", HOME: home, SALLYPORT_HOME: home },
    stdio: ["ignore", "ignore", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [code] = (await once(child, "close")) as [number | null];
  return code;
}

test("two programs and the command renew one credential at the same time, and none spends another's refresh token", async () => {
  const { runner, file, stored, peerDid } = await machine();
  const first = await stored();
  const programs = [renewAgainAndAgain(runner.home, 15), renewAgainAndAgain(runner.home, 15)];
  for (let i = 0; i < 4; i += 1) {
    const sent = await runner.run(["--agent", "alice", "send", peerDid, "--text", "hello"]);
    expect(sent, sent.err).toMatchObject({ code: 0 });
  }
  expect(await Promise.all(programs)).toEqual([0, 0]);
  const last = await stored();
  expect(last.refreshToken).not.toBe(first.refreshToken);
  // What is stored is what the server takes.
  const agent = await openAgent("alice", { home: runner.home, environment: {} });
  await agent.refresh();
  expect((await stored()).refreshToken).toBe(agent.credential().refreshToken);

  // A client with a credential of its own would have spent it: the first one is used up.
  const keys = await importKeys(first.keys);
  const own = createAgentClient({ baseUrl: proxy.url, keys, credential: first });
  await expect(own.refresh()).rejects.toMatchObject({ status: 401 });
  await chmod(file, 0o644);
  await expect(openAgent("alice", { home: runner.home, environment: {} })).rejects.toMatchObject({
    name: "AgentFileError",
    code: "UNSAFE_PERMISSIONS",
  });
});

test("a home, a name and an agent that are none are said by name", async () => {
  const { runner } = await machine();
  const at = { home: runner.home, environment: {} };
  await expect(openAgent("nobody", at)).rejects.toMatchObject({
    code: "NO_AGENT",
    message: expect.stringContaining("alice, bob") as string,
  });
  await expect(openAgent(undefined, { home: join(runner.home, "no"), environment: {} })).rejects.toMatchObject({
    code: "NO_AGENT",
  });
  await expect(openAgent("alice", { ...at, home: 7 as never })).rejects.toMatchObject({ argument: "home" });
  await expect(
    openAgent("alice", { ...at, environment: { SALLYPORT_URL: "https://elsewhere.example.com" } }),
  ).rejects.toMatchObject({ code: "OTHER_ORIGIN" });
});

/** A proxy that leads every tunnel to one server, as if all names were there. */
async function startTunnels(target: string): Promise<{ url: string; tunnels: string[] }> {
  const tunnels: string[] = [];
  const server = createServer((_request, response) => void response.writeHead(400).end());
  server.on("connect", (request, socket: Socket) => {
    tunnels.push(request.url ?? "");
    const { hostname, port } = new URL(target);
    const onward = connect(Number(port), hostname, () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      onward.pipe(socket).pipe(onward);
    });
    for (const each of [socket, onward]) each.on("error", () => each.destroy());
    onTestFinished(() => void onward.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, tunnels };
}

describe("behind a proxy of the environment", () => {
  test("requests and the relay's socket go through its tunnels, unless NO_PROXY names the host", async () => {
    const { runner, file, stored, peerDid } = await machine();
    for (const each of [file, join(runner.home, "agents/bob.json")]) {
      const record = JSON.parse(await readFile(each, "utf8")) as object;
      await writeFile(each, JSON.stringify({ ...record, baseUrl: "http://gate.invalid:8080" }));
    }
    const { url, tunnels } = await startTunnels(proxy.url);
    const open = (name: string, environment: Record<string, string>) =>
      openAgent(name, { home: runner.home, environment });
    const [alice, bob] = [await open("alice", { HTTP_PROXY: url }), await open("bob", { http_proxy: url })];
    onTestFinished(() => bob.close());
    bob.connect({
      onMessage: async (message) => void (message.fromAgentDid === null || (await message.reply("through"))),
    });
    const answer = await alice.request({ to: peerDid, payload: 1, timeoutMs: 60_000 });
    expect(answer.payload).toBe("through");
    alice.close();
    expect(new Set(tunnels)).toEqual(new Set(["gate.invalid:8080"]));
    const before = tunnels.length;
    const direct = await open("alice", { HTTP_PROXY: url, NO_PROXY: "gate.invalid" });
    await expect(direct.pairing.peers()).rejects.toMatchObject({ code: "UNREACHABLE" });
    expect(tunnels.length).toBe(before);
    expect((await stored()).agentDid).toBe(alice.agentDid);
  });
});
