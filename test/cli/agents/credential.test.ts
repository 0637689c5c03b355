import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { newInnerRunner, temporaryFolder } from "../program.ts";
import { type Answering, problem, startRegistry, TOKEN } from "../registry-server.ts";

async function setUp(override?: Answering) {
  const registry = await startRegistry(override);
  const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: TOKEN });
  await runner.json(["init", "--url", registry.url, "--human-name", "Ann", "--no-check"]);
  const read = async (file: string) =>
    JSON.parse(await readFile(join(runner.home, file), "utf8")) as { keys: { x: string; d: string }; agentDid: string };
  const sentKeys = (path: string) =>
    registry.seen
      .filter((each) => each.path === path)
      .map(({ body }) => (JSON.parse(body) as { publicKey: string }).publicKey);
  return { ...registry, runner, read, sentKeys };
}

/** Answers the first request to a path otherwise. */
function firstTo(path: string, answer: ReturnType<typeof problem>): Answering {
  let isFirst = true;
  return (seen) => {
    if (seen.path !== path || !isFirst) return undefined;
    isFirst = false;
    return answer;
  };
}

describe("a new agent's key", () => {
  test.each([
    ["the answer is lost", { isLost: true }, 6],
    ["the server fails", problem(503, "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"), 6],
  ])("is on disk before the server knows it, and is used again when %s", async (_what, answer, code) => {
    const { runner, read, sentKeys } = await setUp(firstTo("/v1/agents", answer));
    const ended = await runner.run(["agent", "register", "Scout"]);
    expect(ended.code).toBe(code);
    const kept = await read("new-keys/Scout.json");
    expect(ended.err).toContain(join(runner.home, "new-keys/Scout.json"));
    await runner.json(["agent", "register", "Scout"]);
    expect(sentKeys("/v1/agents")).toEqual([kept.keys.x, kept.keys.x]);
    expect((await read("agents/Scout.json")).keys).toEqual(kept.keys);
    expect(await readdir(join(runner.home, "new-keys"))).toEqual([]);
  });

  test("that the server refuses is not kept, and one that an earlier run has left is", async () => {
    let answer: ReturnType<typeof problem> | { isLost: true } = problem(403, "PROXY_AUTH_FORBIDDEN");
    const { runner, read } = await setUp(({ path }) => (path === "/v1/agents" ? answer : undefined));
    expect((await runner.run(["agent", "register", "Scout"])).code).toBe(4);
    expect(await readdir(join(runner.home, "new-keys"))).toEqual([]);
    answer = { isLost: true };
    await runner.run(["agent", "register", "Scout"]);
    const kept = await read("new-keys/Scout.json");
    answer = problem(403, "PROXY_AUTH_FORBIDDEN");
    await runner.run(["agent", "register", "Scout"]);
    expect(await read("new-keys/Scout.json")).toEqual(kept);
  });

  test("that the server has registered although its answer was lost becomes the agent's by a re-key", async () => {
    let isLost = true;
    const { runner, read, sentKeys } = await setUp(({ path }) => {
      if (path !== "/v1/agents") return undefined;
      const answer = isLost ? { isLost } : problem(409, "PROXY_CONFLICT");
      isLost = false;
      return answer;
    });
    await runner.run(["agent", "register", "Scout"]);
    const again = await runner.run(["agent", "register", "Scout"]);
    expect(again).toMatchObject({ code: 4, err: expect.stringContaining("agent rekey Scout --did DID") as string });
    await runner.json(["agent", "rekey", "Scout", "--did", "did:cdi:x", "--yes"]);
    expect(sentKeys("/v1/agents/rekey")).toEqual([sentKeys("/v1/agents")[0]]);
    expect((await read("agents/Scout.json")).keys.x).toBe(sentKeys("/v1/agents")[0]);
  });

  test("is not made where the home cannot be written, and nothing is registered", async () => {
    const { url, seen } = await startRegistry();
    const file = join(await temporaryFolder(), "file");
    await writeFile(file, "");
    for (const home of [file, join(file, "home"), "/proc/sallyport"]) {
      const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: TOKEN, SALLYPORT_HOME: home });
      const ended = await runner.run(["agent", "register", "Scout", "--url", url]);
      expect(ended).toMatchObject({ code: 3, err: expect.stringMatching(/SALLYPORT_HOME|Move it away/) as string });
    }
    expect(seen).toEqual([]);
  });
});

describe("an agent that is re-keyed", () => {
  test("keeps its old key until the new one is confirmed, and has the new one on disk before", async () => {
    const { runner, read, sentKeys } = await setUp(firstTo("/v1/agents/rekey", { isLost: true }));
    await runner.json(["agent", "register", "Scout"]);
    const before = await read("agents/Scout.json");
    expect((await runner.run(["agent", "rekey", "--yes"])).code).toBe(6);
    expect(await read("agents/Scout.json")).toEqual(before);
    const kept = await read("new-keys/Scout.json");
    await runner.json(["agent", "rekey", "--yes"]);
    expect(sentKeys("/v1/agents/rekey")).toEqual([kept.keys.x, kept.keys.x]);
    expect((await read("agents/Scout.json")).keys).toEqual(kept.keys);
  });

  test("keeps its new key when a refresh is in progress meanwhile", async () => {
    const refreshing = Promise.withResolvers<void>();
    const rekeying = Promise.withResolvers<void>();
    const { url, seen } = await startRegistry(async ({ path }) => {
      if (path === "/v1/agents/auth/refresh") {
        rekeying.resolve();
        await refreshing.promise;
      }
      return undefined;
    });
    const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: TOKEN });
    await runner.json(["init", "--url", url, "--human-name", "Ann"]);
    await runner.json(["agent", "register", "Scout"]);
    const file = join(runner.home, "agents/Scout.json");
    const stored = async () =>
      JSON.parse(await readFile(file, "utf8")) as { keys: { x: string }; refreshToken: string };
    const before = await stored();
    await writeFile(file, JSON.stringify({ ...before, access: { token: "old", expiresAtMs: 1 } }));
    const slow = runner.run(["pair", "peers"]);
    await rekeying.promise;
    const rekey = runner.json(["agent", "rekey", "--yes"]);
    refreshing.resolve();
    await Promise.all([slow, rekey]);
    const sent = seen.filter(({ path }) => path === "/v1/agents/rekey").map(({ body }) => JSON.parse(body) as object);
    expect(sent).toMatchObject([{ publicKey: (await stored()).keys.x }]);
    expect((await stored()).keys.x).not.toBe(before.keys.x);
  });
});
