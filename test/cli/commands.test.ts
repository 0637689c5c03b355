import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { newInnerRunner, temporaryFolder } from "./program.ts";
import { setUp } from "./registered-agent.ts";
import { ait, type Answering, PEER_DID, problem, startRegistry, TOKEN } from "./registry-server.ts";

describe("init", () => {
  test("asks the server before it writes anything", async () => {
    const runner = await newInnerRunner();
    const ended = await runner.run(["init", "--url", "http://127.0.0.1:9"]);
    expect(ended.code).toBe(6);
    expect(ended.err).toContain("UNREACHABLE");
    expect((await runner.run(["agent", "list"])).out).toContain("no agents here yet");
    expect((await runner.run(["pair", "peers"])).code).toBe(3);
  });

  test("takes the operator token from standard input, and never as an argument", async () => {
    const { url } = await startRegistry();
    const runner = await newInnerRunner();
    expect(await runner.json(["init", "--url", url, "--operator-token-file", "-"], TOKEN)).toMatchObject({
      operatorToken: true,
    });
    expect((await runner.run(["init", "--help"])).out).not.toMatch(/--operator-token[ =<]/);
  });

  test.each(["ftp://x", "gate", "https://user:secret@gate.example.com"])(
    "does not take %s for an address",
    async (url) => {
      expect((await (await newInnerRunner()).run(["init", "--url", url, "--no-check"])).code).toBe(2);
    },
  );
});

describe("agent", () => {
  test("register keeps the private key here, and sends the public half", async () => {
    const { seen, stored } = await setUp();
    const { keys } = (await stored()) as { keys: { x: string; d: string } };
    const request = seen.find(({ path }) => path === "/v1/agents");
    expect(JSON.parse(request?.body ?? "")).toEqual({ name: "Scout", framework: "sallyport", publicKey: keys.x });
    expect(seen.map(({ body }) => body).join()).not.toContain(keys.d);
  });

  test("register takes no name twice, and no name that is a path", async () => {
    const { runner, stored } = await setUp();
    const before = await stored();
    expect(await runner.run(["agent", "register", "Scout"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("NAME_TAKEN") as string,
    });
    expect(await stored()).toEqual(before);
    expect((await runner.run(["agent", "register", "../Scout"])).code).toBe(2);
  });

  test("rekey makes another key for the same agent", async () => {
    const { runner, stored } = await setUp();
    const before = (await stored()) as { keys: { x: string }; agentDid: string };
    expect(await runner.json(["agent", "rekey", "--yes"])).toMatchObject({ name: "Scout", agentDid: before.agentDid });
    expect((await stored()) as { keys: { x: string } }).not.toMatchObject({ keys: { x: before.keys.x } });
  });

  test.each([
    ["agent", "rekey"],
    ["agent", "revoke", "Scout"],
    ["pair", "remove", PEER_DID],
  ])("%s %s wants --yes where there is no terminal to ask on", async (...args) => {
    const { runner, seen } = await setUp();
    const before = seen.length;
    expect(await runner.run(args)).toMatchObject({ code: 2, err: expect.stringContaining("--yes") as string });
    expect(seen).toHaveLength(before);
  });

  test("without the operator token says where to get it", async () => {
    const { url } = await startRegistry();
    const runner = await newInnerRunner({ SALLYPORT_URL: url });
    expect(await runner.run(["agent", "register", "Scout"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("SALLYPORT_OPERATOR_TOKEN") as string,
    });
  });
});

describe("send", () => {
  test("sends JSON as it is, words as text, and what stands in a file or on standard input", async () => {
    const { runner, seen } = await setUp();
    const file = join(await temporaryFolder(), "message.json");
    await writeFile(file, '{"from": "file"}');
    await runner.json(["send", PEER_DID, '{"n": 1.0}']);
    await runner.json(["send", PEER_DID, "--text", "hello"]);
    await runner.json(["send", PEER_DID, "--file", file]);
    await runner.json(["send", PEER_DID], '{"from": "stdin"}');
    const hooks = seen.filter(({ path }) => path === "/hooks/agent");
    expect(hooks.map(({ body }) => body)).toEqual([
      '{"n": 1.0}',
      '{"text":"hello"}',
      '{"from": "file"}',
      '{"from": "stdin"}',
    ]);
    expect(hooks.map(({ headers }) => headers["x-claw-recipient-agent-did"])).toEqual(Array(4).fill(PEER_DID));
  });

  test.each([
    ["no JSON", ["send", PEER_DID, "hello"]],
    ["the message twice", ["send", PEER_DID, "1", "--text", "x"]],
    ["a recipient that is unknown here", ["send", "bob", "1"]],
    ["a wait that is too long", ["send", PEER_DID, "1", "--wait", "16"]],
    ["no recipient", ["send"]],
  ])("is a matter of usage with %s", async (_what, args) => {
    const { runner, seen } = await setUp();
    expect((await runner.run(args)).code).toBe(2);
    expect(seen.filter(({ path }) => path === "/hooks/agent")).toEqual([]);
  });

  test("asks again under the same key when the answer is lost", async () => {
    let lost = 0;
    const { runner, seen } = await setUp(({ path }) => {
      if (path !== "/hooks/agent" || (lost += 1) > 1) return undefined;
      return { text: "" };
    });
    // An empty answer is none that a Sallyport gives, and is not asked for again: the message may have been taken.
    expect((await runner.run(["send", PEER_DID, "1"])).code).toBe(3);
    await runner.json(["send", PEER_DID, "1", "--idempotency-key", "k"]);
    expect(
      seen.filter(({ path }) => path === "/hooks/agent").map(({ headers }) => headers["idempotency-key"]),
    ).toContain("k");
  });
});

describe("an exit code", () => {
  test.each([
    [401, "PROXY_AUTH_REVOKED", 5],
    [403, "PROXY_AUTH_FORBIDDEN", 4],
    [404, "PROXY_NOT_FOUND", 4],
    [429, "PROXY_RATE_LIMIT_EXCEEDED", 6],
    [503, "PROXY_AUTH_DEPENDENCY_UNAVAILABLE", 6],
    [507, "PROXY_RELAY_QUEUE_FULL", 6],
  ])("for %d %s is %d, and the failure is JSON where it was asked for", async (status, code, exitCode) => {
    const { runner } = await setUp(({ path }) => (path === "/hooks/agent" ? problem(status, code) : undefined));
    const ended = await runner.run(["send", PEER_DID, "1", "--json"]);
    expect(ended.code).toBe(exitCode);
    expect(ended.out).toBe("");
    expect(JSON.parse(ended.err)).toMatchObject({
      error: { code, message: `says ${code}`, requestId: "request-1", exitCode },
    });
  });

  test("for arguments that make no sense is 2, also as JSON", async () => {
    const ended = await (await newInnerRunner()).run(["sned", "--json"]);
    expect(ended.code).toBe(2);
    expect(JSON.parse(ended.err)).toMatchObject({ error: { code: "USAGE", exitCode: 2 } });
  });

  test("of an expired identity token is 5, with what to do", async () => {
    const { runner, change } = await setUp();
    await change({ ait: ait("x", -10) });
    expect(await runner.run(["pair", "peers"])).toMatchObject({
      code: 5,
      err: expect.stringContaining("rekey") as string,
    });
  });
});

test.each([
  [["authz", "enforce", "foo", "on"], "tenant"],
  [["authz", "explain", "agent:worker", "read", "task:1"], "agent:DID"],
  [["authz", "check", "agent:worker", "read", "task:1"], "agent:DID"],
])("a name that does not exist is not found, and the advice says where names are: %j", async (args, advice) => {
  const error = { code: -32004, message: "There is no such thing.", data: { code: "PROXY_NOT_FOUND" } };
  const { runner } = await setUp(({ path }) =>
    path === "/rpc" ? { json: { jsonrpc: "2.0", id: 1, error } } : undefined,
  );
  expect(await runner.run(args)).toMatchObject({ code: 4, err: expect.stringContaining(advice) as string });
});

describe("a server whose clock is an hour ahead", () => {
  const HOUR_MS = 3_600_000;
  /** As the server sees them: requests that are not signed by its own time are refused. */
  const ahead: Answering = ({ path, headers }) => {
    if (path === "/v1/time") return { json: { unixMs: Date.now() + HOUR_MS } };
    if (path !== "/pair/peers") return undefined;
    const created = /created=(\d+)/.exec(String(headers["signature-input"]))?.[1] ?? headers["x-claw-timestamp"];
    const isInTime = Math.abs(Number(created) * 1_000 - Date.now() - HOUR_MS) < 300_000;
    return isInTime ? { json: { peers: [] } } : problem(401, "PROXY_AUTH_TIMESTAMP_SKEW");
  };

  test("is not believed: what is signed for later could be used then", async () => {
    const { runner } = await setUp(ahead);
    expect(await runner.run(["pair", "peers"])).toMatchObject({
      code: 3,
      err: expect.stringMatching(/CLOCK_NOT_TRUSTED[^]*--trust-clock/) as string,
    });
  });

  test("is believed by --trust-clock, with a remark on this machine's", async () => {
    const { runner } = await setUp(ahead);
    expect(await runner.run(["pair", "peers", "--trust-clock"])).toMatchObject({
      code: 0,
      err: expect.stringContaining("3600 s behind") as string,
    });
  });
});

test("an identity token that does not hold yet is no reason to re-key: the advice is to try again", async () => {
  const { runner, change } = await setUp(({ path }) =>
    path === "/pair/peers" ? problem(401, "PROXY_AUTH_INVALID_AIT") : undefined,
  );
  expect(await runner.run(["pair", "peers"])).toMatchObject({ code: 5 });
  await change({ ait: ait("x", 1_000_000, 1) });
  expect(await runner.run(["pair", "peers"])).toMatchObject({
    code: 6,
    err: expect.stringMatching(/CREDENTIAL_NOT_YET_VALID[^]*Try again/) as string,
  });
});

describe("JSON of others is passed on to the byte:", () => {
  const PAYLOAD = '{"id":12345678901234567890,"x":1e400,"y":-0,"z":1,"z":2}';
  const TASK = { name: null, agentDid: PEER_DID, status: "running", createdAtMs: 1, creatorServiceAccountId: null };
  const task = `${JSON.stringify({ taskId: "t", ...TASK, creatorUserId: "u" }).slice(0, -1)},"params":${PAYLOAD}}`;
  const rpc = (result: string): Answering => {
    return ({ path }) => (path === "/rpc" ? { text: `{"jsonrpc":"2.0","id":1,"result":${result}}` } : undefined);
  };

  test("what a task is given", async () => {
    const { runner, seen } = await setUp(rpc(`{"task":${task}}`));
    const ended = await runner.run(["task", "create", "--params", ` ${PAYLOAD}\n`, "--metadata", "1.0", "--json"]);
    expect(seen.at(-1)?.body).toContain(`"params":${PAYLOAD},"metadata":1.0`);
    expect(ended.out).toContain(`"params":${PAYLOAD}`);
  });

  test("what is sent to a task", async () => {
    const { runner, seen } = await setUp(rpc('{"deliveryId":"d"}'));
    await runner.json(["task", "send", "t", "-"], PAYLOAD);
    expect(seen.at(-1)?.body).toContain(`"content":${PAYLOAD}`);
  });

  test("tasks that are listed", async () => {
    const { runner } = await setUp(rpc(`{"tasks":[${task},${task}]}`));
    expect((await runner.run(["task", "list", "--json"])).out.split(`"params":${PAYLOAD}`)).toHaveLength(3);
  });

  test("dead letters", async () => {
    const letter = {
      id: "d",
      deliveryId: "d",
      fromAgentDid: null,
      reason: "r",
      attempts: 1,
      createdAtMs: 1,
      deadAtMs: 1,
    };
    const text = `{"deadLetters":[${JSON.stringify(letter).slice(0, -1)},"payload": ${PAYLOAD}}]}`;
    const { runner } = await setUp(({ path }) => (path.startsWith("/v1/dead-letters") ? { text } : undefined));
    const { out } = await runner.run(["dead-letters", "list", "--json"]);
    expect(out).toContain(`"payload": ${PAYLOAD}`);
    expect(JSON.parse(out)).toMatchObject({ deadLetters: [{ payloadText: PAYLOAD }] });
  });
});

test("a message in a file with a byte order mark is sent without it, and one that is no UTF-8 is not sent", async () => {
  const { runner, seen } = await setUp();
  const file = join(await temporaryFolder(), "message.json");
  await writeFile(file, '\ufeff{"a":1}');
  await runner.json(["send", PEER_DID, "--file", file]);
  await runner.json(["send", PEER_DID, "-"], '\ufeff{"a":2}');
  expect(seen.filter(({ path }) => path === "/hooks/agent").map(({ body }) => body)).toEqual(['{"a":1}', '{"a":2}']);
  await writeFile(file, Buffer.from('{"name":"caf\u00e9"}', "latin1"));
  const ended = await runner.run(["send", PEER_DID, "--file", file]);
  expect(ended).toMatchObject({ code: 2, err: expect.stringContaining("UTF-8") as string });
});

test.each([
  ["conversationId", ["send", PEER_DID, "1", "--conversation", "a\u200bb"]],
  ["to", ["send", `${PEER_DID}\u200b`, "1"]],
])("an argument that cannot be sent is named, and is no outage: %s", async (argument, args) => {
  const { runner } = await setUp();
  expect(await runner.run(args)).toMatchObject({ code: 2, err: expect.stringContaining(`${argument}: `) as string });
});

test("what a peer calls itself cannot colour the terminal", async () => {
  const { runner } = await setUp();
  const { out } = await runner.run(["pair", "peers"]);
  expect(out).toContain(String.raw`Bob\u001b[31m`);
  expect(out).not.toContain("\u001b");
});

test("several commands at once use a refresh token once, and leave the newest in the file", async () => {
  const { runner, seen, stored, change } = await setUp();
  await change({ access: { token: "old", expiresAtMs: 1 } });
  const ended = await Promise.all([1, 2, 3].map(() => runner.run(["pair", "peers"])));
  expect(ended.map(({ code }) => code)).toEqual([0, 0, 0]);
  const refreshes = seen.filter(({ path }) => path === "/v1/agents/auth/refresh");
  expect(refreshes).toHaveLength(1);
  expect(await stored()).toMatchObject({ access: { token: "access-2" }, refreshToken: "refresh-2" });
});
