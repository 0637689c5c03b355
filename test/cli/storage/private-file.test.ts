import { chmod, mkdir, readdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { newInnerRunner, newRunner, PROGRAM, temporaryFolder } from "../program.ts";
import { startRegistry, TOKEN } from "../registry-server.ts";

async function setUp() {
  const { url, seen } = await startRegistry();
  const runner = await newInnerRunner();
  const tokenFile = join(await temporaryFolder(), "token");
  await writeFile(tokenFile, `OPERATOR_TOKEN="${TOKEN}"\n`);
  await runner.json(["init", "--url", url, "--human-name", "Ann", "--operator-token-file", tokenFile]);
  await runner.json(["agent", "register", "Scout"]);
  return { runner, seen, agentFile: join(runner.home, "agents/Scout.json") };
}

const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8);

describe("keys and tokens", () => {
  test("stand in files and folders that only their owner can open, and nothing is left beside them", async () => {
    const { runner, agentFile } = await setUp();
    for (const folder of [runner.home, join(runner.home, "agents")]) expect(await modeOf(folder)).toBe("700");
    for (const file of [agentFile, join(runner.home, "operator.json"), join(runner.home, "settings.json")]) {
      expect(await modeOf(file)).toBe("600");
    }
    expect(await readdir(join(runner.home, "agents"))).toEqual(["Scout.json"]);
  });

  test.each([0o640, 0o604, 0o620, 0o602])("are not read from a file of mode %o", async (mode) => {
    const { runner, agentFile, seen } = await setUp();
    await chmod(agentFile, mode);
    const before = seen.length;
    const ended = await runner.run(["pair", "peers"]);
    expect(ended.code).toBe(3);
    expect(ended.err).toContain("UNSAFE_PERMISSIONS");
    expect(ended.err).toContain(`chmod 600 ${agentFile}`);
    expect(seen).toHaveLength(before);
  });

  test("are not read through a symbolic link", async () => {
    const { runner, agentFile } = await setUp();
    await rename(agentFile, `${agentFile}.real`);
    await symlink(`${agentFile}.real`, agentFile);
    expect(await runner.run(["pair", "peers"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("symbolic link") as string,
    });
  });

  test("are not written into a folder that others can look into", async () => {
    const { url } = await startRegistry();
    const runner = await newInnerRunner();
    await mkdir(runner.home, { mode: 0o755, recursive: true });
    const ended = await runner.run(["init", "--url", url]);
    expect(ended.code).toBe(3);
    expect(ended.err).toContain("chmod 700");
    expect(await readdir(runner.home)).toEqual([]);
  });

  test("never show up in what the command says", async () => {
    const { runner, agentFile } = await setUp();
    const { keys, ait, access, refreshToken } = JSON.parse(await readFile(agentFile, "utf8")) as {
      keys: { d: string };
      ait: string;
      access: { token: string };
      refreshToken: string;
    };
    const said: string[] = [];
    for (const args of [
      ["agent", "list"],
      ["doctor"],
      ["pair", "peers"],
      ["agent", "rekey", "--yes"],
      ["send", "did:x", "1"],
    ]) {
      for (const json of [[], ["--json"]]) {
        const { out, err } = await runner.run([...args, ...json]);
        said.push(out, err);
      }
    }
    for (const secret of [keys.d, ait, access.token, refreshToken, TOKEN])
      expect(said.join("\n")).not.toContain(secret);
  });

  test("are read from a file that an editor has put a byte order mark before", async () => {
    const { runner, agentFile } = await setUp();
    await writeFile(agentFile, `\ufeff${await readFile(agentFile, "utf8")}`);
    await runner.json(["pair", "peers"]);
  });

  test.each([
    ["cut short", (text: string) => text.slice(0, -5)],
    ["without a member", (text: string) => text.replace('"ownerDid"', '"owner"')],
    ["in another encoding", (text: string) => Buffer.from(`\ufeff${text}`, "utf16le")],
  ])("in a file that is %s may still be good: the advice is never to delete it", async (_what, change) => {
    const { runner, agentFile } = await setUp();
    const text = await readFile(agentFile, "utf8");
    const { d } = (JSON.parse(text) as { keys: { d: string } }).keys;
    await writeFile(agentFile, change(text));
    const ended = await runner.run(["pair", "peers"]);
    expect(ended).toMatchObject({ code: 3, err: expect.stringContaining("BROKEN_FILE") as string });
    expect(ended.err).not.toMatch(/(?<!do not )delete/i);
    expect(ended.err).toContain("may still be good");
    expect(ended.err).not.toContain(d);
  });

  test("are refused when a file is not what this command wrote", async () => {
    const { runner, agentFile } = await setUp();
    await writeFile(agentFile, "{}");
    expect(await runner.run(["pair", "peers"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("BROKEN_FILE") as string,
    });
  });
});

test("the command works through symbolic links, from anywhere", async () => {
  const folder = await temporaryFolder();
  await symlink(PROGRAM, join(folder, "first"));
  await mkdir(join(folder, "bin"));
  await symlink("../first", join(folder, "bin/sallyport"));
  const runner = await newRunner({}, join(folder, "bin/sallyport"));
  expect(await runner.run(["--help"])).toMatchObject({ code: 0, out: expect.stringContaining("Exit codes") as string });
});
