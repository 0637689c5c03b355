/** `sallyport connect` as a process, between the real program and a real server of the test's own. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { newInnerRunner, PROGRAM, temporaryFolder } from "../cli/program.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { connectBob, machine, payloads, program, type Running, send, stateOf } from "./connected-bob.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

test("a message is posted with its sender, and acknowledged when the program has taken it", async () => {
  const { runner, alice } = await machine(proxy.url);
  const { url, got } = await program((_got, response) => response.writeHead(204).end());
  await connectBob(runner, ["--forward-to", url, "--header", "X-Program: yes"]);
  const id = await send(runner, '{"n":1e400}', "--conversation", "c");
  await expect.poll(() => stateOf(runner, id)).toBe("handled");
  expect(got).toHaveLength(1);
  expect(got[0]?.headers).toMatchObject({ "x-program": "yes", "sallyport-delivery-id": id });
  expect(got[0]?.body).toContain('"payload":{"n":1e400}}');
  expect(JSON.parse(got[0]?.body.replace("1e400", "1") ?? "")).toMatchObject({
    fromAgentDid: alice,
    conversationId: "c",
  });
});

test("a program that is down for a while gets the messages of a sender in their order, and loses none", async () => {
  const { runner } = await machine(proxy.url);
  let isDown = true;
  const { url, got } = await program((_got, response) =>
    response.writeHead(isDown ? 503 : 200, { "Retry-After": "1" }).end(),
  );
  const { said } = await connectBob(runner, ["--forward-to", url]);
  for (const n of [1, 2, 3]) await send(runner, String(n));
  await expect.poll(() => said()).toContain("program: answered 503");
  isDown = false;
  const from = got.length;
  await expect.poll(() => payloads(got.slice(from))).toEqual([1, 2, 3]);
  expect(said().match(/answered 503/g)).toHaveLength(1);
  await expect.poll(() => said()).toContain("program: well again");
});

test("what the program refuses is a dead letter with its reason", async () => {
  const { runner } = await machine(proxy.url);
  const { url } = await program((_got, response) => response.writeHead(422).end('{"reason":"not my job"}'));
  await connectBob(runner, ["--forward-to", url]);
  const id = await send(runner, "1");
  await expect
    .poll(() => runner.json(["delivery", id, "--agent", "alice"]))
    .toMatchObject({
      state: "dead_lettered",
      reason: "not my job",
    });
});

test("a command gets the payload on standard input", async () => {
  const { runner } = await machine(proxy.url);
  const file = join(await temporaryFolder(), "got");
  await connectBob(runner, ["--exec", `cat >> '${file}'`]);
  const id = await send(runner, '{"text":"hello"}');
  await expect.poll(() => stateOf(runner, id)).toMatch(/delivered|handled/);
  expect(await readFile(file, "utf8")).toBe('{"text":"hello"}');
});

describe("with an inbox", () => {
  test("messages are acknowledged while the program is down, outlast SIGKILL, and come in their order", async () => {
    const { runner } = await machine(proxy.url);
    let isDown = true;
    const { url, got } = await program((_got, response) => response.writeHead(isDown ? 500 : 200).end());
    const first = await connectBob(runner, ["--forward-to", url, "--inbox"]);
    const ids = [await send(runner, "1"), await send(runner, "2")];
    for (const id of ids) await expect.poll(() => stateOf(runner, id)).toBe("delivered");
    first.child.kill("SIGKILL");
    await first.ended;
    const listed = (await runner.json(["inbox", "list", "--agent", "bob"])) as {
      messages: { deliveryId: string; state: string }[];
    };
    expect(listed.messages.map(({ deliveryId, state }) => [deliveryId, state])).toEqual([
      [ids[1], "waiting"],
      [ids[0], "waiting"],
    ]);
    isDown = false;
    const from = got.length;
    await connectBob(runner, ["--forward-to", url, "--inbox"]);
    // Its time may have come by itself before.
    await runner.run(["inbox", "retry", ids[0] ?? "", "--agent", "bob"]);
    await expect.poll(() => payloads(got.slice(from))).toEqual([1, 2]);
    for (const id of ids) await expect.poll(() => stateOf(runner, id)).toBe("handled");
    await expect
      .poll(() => runner.json(["inbox", "list", "--agent", "bob", "--state", "handled"]))
      .toMatchObject({
        messages: [{ deliveryId: ids[1] }, { deliveryId: ids[0] }],
      });
  });

  test("a message that the program never takes can be looked at and dropped", async () => {
    const { runner } = await machine(proxy.url);
    const { url } = await program((_got, response) => response.writeHead(500).end());
    await connectBob(runner, ["--forward-to", url, "--inbox"]);
    const id = await send(runner, '{"n":1e400}');
    await expect.poll(() => stateOf(runner, id)).toBe("delivered");
    await expect
      .poll(async () => (await runner.run(["inbox", "show", id, "--agent", "bob"])).out)
      .toContain("answered 500");
    expect((await runner.run(["inbox", "show", id, "--agent", "bob"])).out).toContain('{"n":1e400}');
    await runner.json(["inbox", "drop", id, "--agent", "bob"]);
    await expect.poll(() => stateOf(runner, id)).toBe("failed");
    expect(await runner.json(["inbox", "list", "--agent", "bob"])).toMatchObject({
      messages: [{ deliveryId: id, state: "failed" }],
    });
  });
});

describe("the local API", () => {
  const ask = (running: Running, path: string, body?: unknown): Promise<Response> =>
    fetch(running.api + path, {
      headers: { Authorization: `Bearer ${running.token}`, "Content-Type": "application/json" },
      ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
    });

  test("a program fetches, acknowledges, replies and sends", async () => {
    const { runner, alice } = await machine(proxy.url);
    const running = await connectBob(runner, []);
    const id = await send(runner, '"question"', "--conversation", "talk");
    const fetched = (await (await ask(running, "/v1/inbox?waitSeconds=20")).json()) as {
      messages: { deliveryId: string; payload: unknown }[];
    };
    expect(fetched.messages).toMatchObject([{ deliveryId: id, payload: "question" }]);
    expect((await ask(running, "/v1/reply", { deliveryId: id, payload: "answer" })).status).toBe(202);
    await ask(running, "/v1/inbox/ack", { acks: [{ deliveryId: id, accepted: true }] });
    await expect.poll(() => stateOf(runner, id)).toMatch(/delivered|handled/);
    // The first is the notice of the pairing.
    const { out } = await runner.run(["listen", "--agent", "alice", "--count", "2", "--json"]);
    expect(JSON.parse(out.trim().split("\n")[1] ?? "")).toMatchObject({
      message: { payload: "answer", conversationId: "talk" },
    });
    expect(await (await ask(running, "/v1/peers")).json()).toMatchObject({ peers: [{ agentDid: alice }] });
    expect(await runner.json(["connect", "status", "--agent", "bob"])).toMatchObject({
      relay: "open",
      messages: { handled: 1 },
    });
  });

  test("with an outbox a send is answered while the server is down, and goes out once when it is back", async () => {
    const own = await startProxy();
    onTestFinished(() => own.stop());
    const { runner, alice: to } = await machine(own.url);
    const running = await connectBob(runner, ["--outbox"]);
    await own.kill();
    for (const n of [1, 2]) {
      const answer = await ask(running, "/v1/send", { to, payload: n, idempotencyKey: `k${n}` });
      expect({ status: answer.status, json: await answer.json() }).toEqual({
        status: 202,
        json: { key: `k${n}`, state: "waiting" },
      });
    }
    await own.restart();
    // The first is the notice of the pairing.
    const listened = await runner.run(["listen", "--agent", "alice", "--count", "3", "--json"]);
    const numbers = listened.out
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { message: { payload: unknown } }).message.payload)
      .slice(1);
    expect(numbers).toEqual([1, 2]);
    expect(await (await ask(running, "/v1/send", { to, payload: 1, idempotencyKey: "k1" })).json()).toMatchObject({
      state: "sent",
    });
  });

  test("numbers are served with --metrics", async () => {
    const { runner } = await machine(proxy.url);
    const running = await connectBob(runner, ["--metrics"]);
    const numbers = await (await ask(running, "/metrics")).text();
    expect(numbers).toContain("sallyport_connect_relay_open 1");
    expect(numbers.endsWith("# EOF\n")).toBe(true);
  });
});

describe("what makes no sense is said before anything is connected", () => {
  test.each([
    { args: ["--forward-to", "http://127.0.0.1:1", "--exec", "true"], says: "not both" },
    { args: ["--forward-to", "ftp://x"], says: "no http(s) URL" },
    { args: ["--forward-to", "http://program.lan/x"], says: "https:" },
    { args: ["--forward-to", "http://a:b@127.0.0.1/"], says: "--header-file" },
    { args: ["--forward-to", "http://127.0.0.1:1", "--format", "xml"], says: "cloudevents" },
    { args: ["--forward-to", "http://127.0.0.1:1", "--header", "nonsense secret"], says: "NAME: VALUE" },
    { args: ["--forward-to", "http://127.0.0.1:1", "--header", "Host: x"], says: "Host" },
    { args: ["--format", "raw"], says: "--forward-to" },
    { args: ["--metrics", "--no-listen"], says: "--no-listen" },
    { args: ["--timeout", "0"], says: "--timeout" },
  ])("$args", async ({ args, says }) => {
    const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN });
    await runner.json(["init", "--url", proxy.url, "--human-name", "Ann"]);
    await runner.json(["agent", "register", "bob"]);
    const ended = await runner.run(["connect", ...args]);
    expect(ended).toMatchObject({ code: 2, err: expect.stringContaining(says) as string });
    expect(ended.err).not.toContain("secret");
  });
});

test("a second connector of one agent is refused while the first runs", async () => {
  const { runner } = await machine(proxy.url);
  const first = await connectBob(runner, []);
  const second = spawn(PROGRAM, ["--agent", "bob", "connect", "--listen", "0"], {
    env: { PATH: process.env["PATH"] ?? "", HOME: runner.home, SALLYPORT_HOME: runner.home },
    stdio: ["ignore", "ignore", "pipe"],
  });
  expect(await once(second, "close")).toEqual([3, null]);
  first.child.kill("SIGTERM");
  expect(await first.ended).toBe(0);
});
