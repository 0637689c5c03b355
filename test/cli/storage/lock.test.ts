import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { withLock } from "../../../src/cli/storage/lock.ts";
import { tryProcessLock } from "../../../src/cli/storage/process-lock.ts";
import { temporaryFolder } from "../program.ts";

/** How often a process is killed; `LOCK_KILLS=200` is the long form. */
const KILLS = Number(process.env["LOCK_KILLS"] ?? "12");
const HOLDER = join(import.meta.dirname, "lock-holder.ts");
const KEYS = { kty: "OKP", crv: "Ed25519", x: "x", d: "the key that must not be lost" };

/** A home with one agent, whose refresh token counts the changes of its file. */
async function newHome(): Promise<{ home: string; file: string }> {
  const home = await temporaryFolder();
  await mkdir(join(home, "agents"), { mode: 0o700 });
  const file = join(home, "agents/Scout.json");
  const agent = { name: "Scout", baseUrl: "http://x", agentDid: "d", ownerDid: "o", keys: KEYS, ait: "a" };
  await writeFile(file, JSON.stringify({ ...agent, access: { token: "t", expiresAtMs: 1 }, refreshToken: "0" }), {
    mode: 0o600,
  });
  return { home, file };
}

/** Node 20 has no SQLite, as others without it. */
const WITHOUT_SQLITE = ["--no-experimental-sqlite"];

test.each([
  { of: "newer Nodes", flags: [[], []] },
  { of: "a newer Node and Node 20", flags: [[], WITHOUT_SQLITE] },
  { of: "Node 20", flags: [WITHOUT_SQLITE, WITHOUT_SQLITE] },
])(
  `two processes of $of and ${KILLS} kills: never two in at once, and no key is lost`,
  { timeout: 600_000 },
  async ({ flags }) => {
    const { home, file } = await newHome();
    const numbers: number[] = [];
    /** Of processes that nobody has killed: two that are in at once take the file from under each other. */
    const crashed: number[] = [];
    let entered = Promise.withResolvers<void>();
    const start = (which: number): ChildProcess => {
      const child = spawn(process.execPath, [...(flags[which] ?? []), HOLDER], {
        env: { SALLYPORT_HOME: home },
        stdio: ["ignore", "pipe", "inherit"],
      });
      onTestFinished(() => void child.kill("SIGKILL"));
      child.on("exit", (code) => code === null || crashed.push(code));
      createInterface({ input: child.stdout }).on("line", (line) => {
        if (line === "in") entered.resolve();
        else numbers.push(Number(line));
      });
      return child;
    };

    const children = [start(0), start(1)];
    for (let kill = 0; kill < KILLS; kill += 1) {
      entered = Promise.withResolvers<void>();
      await entered.promise;
      // Anywhere between the entrance of one and the end of it, or of the other.
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 8));
      const victim = children[kill % 2];
      victim?.kill("SIGKILL");
      children[kill % 2] = start(kill % 2);
    }
    // Whatever the last kill has left is no obstacle to the next.
    const before = numbers.length;
    await expect.poll(() => numbers.length, { timeout: 30_000 }).toBeGreaterThan(before + 2);
    const ended = children.map((child) => once(child, "close"));
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(ended);

    expect(crashed).toEqual([]);
    // Two that were in at once would have read the same number, and said the next one both.
    expect(new Set(numbers).size).toBe(numbers.length);
    const stored = JSON.parse(await readFile(file, "utf8")) as { keys: object; refreshToken: string };
    expect(stored.keys).toEqual(KEYS);
    // What was killed in the middle of a change leaves its draft, and the next change deletes it.
    expect((await readdir(join(home, "agents"))).length).toBeLessThanOrEqual(1 + 2);
    expect(Number(stored.refreshToken)).toBeGreaterThanOrEqual(Math.max(...numbers));
    expect(Number(stored.refreshToken)).toBeLessThanOrEqual(numbers.length + KILLS + 2);
  },
);

test("a lock is held by one call of a process at a time", async () => {
  const path = join(await temporaryFolder(), "locks/one.lock");
  let inside = 0;
  const most: number[] = [];
  await Promise.all(
    Array.from({ length: 20 }, () =>
      withLock(path, async () => {
        most.push((inside += 1));
        await new Promise(setImmediate);
        inside -= 1;
      }),
    ),
  );
  expect(most).toEqual(Array(20).fill(1));
});

test("a lock that stays held is an error that names its file, and is free when its work has failed", async () => {
  const path = join(await temporaryFolder(), "locks/one.lock");
  const held = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const holder = withLock(path, () => {
    begun.resolve();
    return held.promise;
  });
  await begun.promise;
  await expect(withLock(path, () => Promise.resolve(), 0)).rejects.toMatchObject({
    code: "LOCKED",
    message: expect.stringContaining(path) as string,
  });
  held.reject(new Error("the work fails"));
  await expect(holder).rejects.toThrow("the work fails");
  expect(await withLock(path, () => Promise.resolve("in"), 0)).toBe("in");
});

test.each(["1", String(process.pid), "", "x"])(
  "a lock file of an earlier version holds nothing up, whatever process it names: %j",
  async (holder) => {
    const { home, file } = await newHome();
    await writeFile(join(home, "agents/.Scout.lock"), holder);
    const child = spawn(process.execPath, [HOLDER], {
      env: { SALLYPORT_HOME: home },
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    await once(child.stdout, "data");
    await expect
      .poll(async () => JSON.parse(await readFile(file, "utf8")) as object, { timeout: 30_000 })
      .not.toMatchObject({ refreshToken: "0" });
    expect((await readdir(join(home, "agents"))).toSorted()).toContain("Scout.json");
  },
);

test.each(["", '{"pid":'])("a lock's file that a power cut has left unfinished is nobody's: %j", async (left) => {
  const path = join(await temporaryFolder(), "lock");
  await writeFile(`${path}.1`, left);
  const release = tryProcessLock(path);
  expect(release).not.toBeNull();
  expect(tryProcessLock(path)).toBeNull();
  release?.();
});
