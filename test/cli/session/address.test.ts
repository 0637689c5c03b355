import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { newInnerRunner, type Runner } from "../program.ts";
import { PEER_DID, type Seen, startRegistry, TOKEN } from "../registry-server.ts";

type Stored = { baseUrl?: string; token?: string; keys: { x: string } };

async function setUp() {
  const [own, other] = [await startRegistry(), await startRegistry()];
  const runner = await newInnerRunner();
  await runner.json(["init", "--url", own.url, "--human-name", "Ann", "--operator-token-file", "-"], TOKEN);
  await runner.json(["agent", "register", "Scout"]);
  await runner.json(["device", "key", "phone", "--of", PEER_DID]);
  const stored = async (file: string): Promise<Stored> =>
    JSON.parse(await readFile(join(runner.home, file), "utf8")) as Stored;
  return { own, other, runner, stored };
}

/** Every secret of a machine that a request could carry. */
async function secretsIn(runner: Runner): Promise<string[]> {
  const agent = JSON.parse(await readFile(join(runner.home, "agents/Scout.json"), "utf8")) as {
    ait: string;
    access: { token: string };
    refreshToken: string;
  };
  return [TOKEN, agent.ait, agent.access.token, agent.refreshToken];
}

const textOf = (seen: readonly Seen[]): string => JSON.stringify(seen);

describe("an address that was given for one run", () => {
  test.each([
    ["agent", "use", "Scout"],
    ["agent", "list"],
    ["init", "--no-check", "--help"],
  ])("is not stored by %s %s", async (...args) => {
    const { other, own, runner, stored } = await setUp();
    await runner.run([...args, "--url", other.url]);
    expect((await stored("settings.json")).baseUrl).toBe(own.url);
    await runner.json(["agent", "list", "--all"]);
    expect(other.seen).toEqual([]);
  });

  test("is the one of an agent that was registered there, and of nothing else", async () => {
    const { other, own, runner, stored } = await setUp();
    const elsewhere = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: TOKEN, SALLYPORT_HOME: runner.home });
    await elsewhere.json(["agent", "register", "two", "--default", "--url", other.url]);
    expect((await stored("agents/two.json")).baseUrl).toBe(other.url);
    expect(await stored("settings.json")).toMatchObject({ baseUrl: own.url, defaultAgent: "two" });
    expect((await stored("operator.json")).baseUrl).toBe(own.url);
  });
});

describe("a secret is sent to the origin that it was given for, and to no other:", () => {
  test.each([
    ["the operator token", ["agent", "list", "--all"]],
    ["the operator token", ["agent", "register", "two"]],
    ["an agent's credential", ["pair", "peers"]],
    ["an agent's credential", ["send", PEER_DID, "1"]],
    ["an agent's credential", ["agent", "rekey", "--yes"]],
    ["a device's key", ["device", "claim", "phone"]],
  ])("%s, by %s", async (_what, args) => {
    const { other, runner } = await setUp();
    const ended = await runner.run([...args, "--url", other.url]);
    expect(ended).toMatchObject({ code: 3, err: expect.stringContaining("OTHER_ORIGIN") as string });
    expect(ended.err).toContain("--moved-from");
    expect(other.seen).toEqual([]);
  });

  test("all of them, by doctor", async () => {
    const { other, runner } = await setUp();
    await runner.run(["doctor", "--url", other.url]);
    for (const secret of await secretsIn(runner)) expect(textOf(other.seen)).not.toContain(secret);
    expect(other.seen.map(({ path }) => path)).toEqual(["/health", "/ready", "/v1/time"]);
  });

  test("the operator token of an earlier version, whose file names no address, also after another init", async () => {
    const { other, own, runner, stored } = await setUp();
    await writeFile(join(runner.home, "operator.json"), JSON.stringify({ token: TOKEN }));
    await runner.json(["init", "--url", other.url]);
    expect((await stored("operator.json")).baseUrl).toBe(own.url);
    expect(await runner.run(["agent", "list", "--all"])).toMatchObject({ code: 3 });
    expect(textOf(other.seen)).not.toContain(TOKEN);
  });

  test("until the user says that the installation has moved", async () => {
    const { other, own, runner, stored } = await setUp();
    expect(await runner.json(["init", "--url", other.url, "--moved-from", own.url])).toMatchObject({
      operatorToken: true,
    });
    await runner.json(["agent", "list", "--all"]);
    await runner.json(["pair", "peers"]);
    for (const file of ["operator.json", "agents/Scout.json", "devices/phone.json"])
      expect((await stored(file)).baseUrl).toBe(other.url);
    expect(other.seen.map(({ path }) => path)).toEqual(["/health", "/v1/time", "/v1/agents", "/pair/peers"]);
  });
});

test.each(["settings.json", "operator.json", "agents/Scout.json", "devices/phone.json"])(
  "what is no address is found in %s, and nothing is sent",
  async (file) => {
    const { own, runner, stored } = await setUp();
    const before = own.seen.length;
    await writeFile(join(runner.home, file), JSON.stringify({ ...(await stored(file)), baseUrl: "javascript:1" }));
    const commands = [
      ["agent", "list", "--all"],
      ["pair", "peers"],
      ["device", "claim", "phone"],
    ];
    const ended = await Promise.all(commands.map((args) => runner.run(args)));
    const broken = ended.filter(({ err }) => err.includes("BROKEN_FILE"));
    expect(broken).not.toEqual([]);
    for (const each of broken)
      expect(each).toMatchObject({ code: 3, err: expect.stringContaining("baseUrl") as string });
    if (file === "settings.json") expect(own.seen.slice(before).map(({ path }) => path)).not.toContain("/v1/agents");
  },
);

test.each([
  "http://127.0.0.1:8787/?x=1",
  "http://127.0.0.1:8787/#x",
  "http://user@127.0.0.1:8787",
  "http://:secret@127.0.0.1:8787",
  "ftp://x",
])("%s is no address, however it is given", async (url) => {
  const { runner } = await setUp();
  expect((await runner.run(["agent", "list", "--all", "--url", url])).code).toBe(2);
  expect((await runner.run(["init", "--no-check", "--url", url])).code).toBe(2);
});
