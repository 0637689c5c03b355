/** The code of docs/library.md and of the README, as it is printed, against the real program, beside the command's own files. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type AgentClient, openAgent } from "../../src/node/index.ts";
import { newRunner, type ProcessRunner, temporaryFolder } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { root } from "../support/program/bundle.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

/** A machine with two agents of the command, which are paired. */
async function machine(): Promise<{ runner: ProcessRunner; bob: AgentClient }> {
  const runner = await newRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN });
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann"]);
  for (const name of ["alice", "bob"]) await runner.json(["agent", "register", name]);
  await runner.json(["agent", "use", "alice"]);
  const { ticket } = (await runner.json(["--agent", "alice", "pair", "start"])) as { ticket: string };
  await runner.json(["--agent", "bob", "pair", "confirm", ticket]);
  const bob = await openAgent("bob", { home: runner.home, environment: {} });
  onTestFinished(() => bob.close());
  return { runner, bob };
}

/** What stands around a block, so that it can run: its names, and the package by its name. */
async function start(block: string, runner: ProcessRunner, peerDid: string) {
  const folder = await temporaryFolder();
  await mkdir(join(folder, "node_modules/sallyport"), { recursive: true });
  const exports = Object.fromEntries(
    ["client", "node", "wire"].map((name) =>
      [`./${name}`, join(".", `src/${name}/index.ts`)].map((path) => (path.startsWith("src") ? `./${path}` : path)),
    ),
  ) as Record<string, string>;
  await writeFile(
    join(folder, "node_modules/sallyport/package.json"),
    JSON.stringify({ name: "sallyport", type: "module", exports }),
  );
  await symlink(join(root, "src"), join(folder, "node_modules/sallyport/src"));
  const stored = await readFile(join(runner.home, "agents/alice.json"), "utf8");
  const names = `const peerDid = ${JSON.stringify(peerDid)}, stored = ${stored}, isBusy = () => false;
const save = () => undefined, handle = (payload) => (console.log("handled", JSON.stringify(payload)), agent.close());\n`;
  await writeFile(join(folder, "example.mjs"), names + block);
  // The types are stripped where the files really are, not under node_modules.
  const child = spawn(process.execPath, [join(folder, "example.mjs")], {
    env: { PATH: process.env["PATH"] ?? "", HOME: runner.home, SALLYPORT_HOME: runner.home },
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let printed = "";
  child.stdout.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  return { ended: once(child, "close"), printed: () => printed };
}

async function blocksOf(path: string): Promise<string[]> {
  const page = await readFile(join(root, path), "utf8");
  return [...page.matchAll(/```(?:js|ts)\n([^]*?)```/g)].map(([, block = ""]) => block);
}

describe.each(["README.md", "docs/library.md"])("%s", async (path) => {
  const blocks = await blocksOf(path);

  test("shows code", () => {
    expect(blocks.length).toBeGreaterThan(0);
  });

  test.each(blocks.map((block, index) => [index + 1, block] as const))(
    "its block %i runs as it is printed, and ends by itself",
    async (_number, block) => {
      const { runner, bob } = await machine();
      const alice = await openAgent("alice", { home: runner.home, environment: {} });
      const replies: unknown[] = [];
      bob.connect({
        async onMessage(message) {
          if (message.fromAgentDid === null) return;
          replies.push(message.payload);
          if (message.conversationId?.startsWith("request-") === true) await message.reply("fine");
        },
      });
      const example = await start(block, runner, bob.agentDid);
      const listens = /messages\(\)|connect\(/.test(block);
      if (listens) await bob.send({ to: alice.agentDid, payload: { text: "to the example" } });
      if (listens) await expect.poll(example.printed).toContain("to the example");
      expect(await example.ended).toEqual([0, null]);
      if (/agent\.send|reply\(/.test(block)) await expect.poll(() => replies.length).toBe(1);
      if (block.includes("request(")) expect(example.printed()).toContain("fine");
    },
  );
});
