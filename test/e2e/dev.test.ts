/** `npm run dev`, twice on one state. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { temporaryFolder } from "../cli/program.ts";
import { freePort } from "../support/program/ports.ts";

const DEV = join(import.meta.dirname, "../../scripts/dev.ts");
const SECRETS = ["OPERATOR_TOKEN", "REGISTRY_SIGNING_SECRET"].flatMap((name) => ["--var", `${name}:${"s".repeat(40)}`]);

function start(stateDir: string, port: number): { child: ChildProcess; ready: Promise<string>; printed: () => string } {
  const child = spawn(process.execPath, [DEV, "--inspector-port", "0", ...SECRETS], {
    env: { ...process.env, STATE_DIR: stateDir, PORT: String(port) },
    stdio: ["ignore", "pipe", "pipe"],
    // A group of its own, so that all of it can be ended.
    detached: true,
  });
  onTestFinished(() => endGroup(child));
  let printed = "";
  child.stderr.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  const ready = new Promise<string>((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line.startsWith("sallyport ready on")) resolve(line);
    });
  });
  return { child, ready, printed: () => printed };
}

/** What is left of it, its server included. */
function endGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

test("npm run dev: a second start on one state is refused by name of the first, also of one whose own process was killed", async () => {
  const stateDir = await temporaryFolder();
  const [port, otherPort] = [await freePort(), await freePort()];
  const first = start(stateDir, port);
  await first.ready;
  for (const each of [port, otherPort]) {
    const second = start(stateDir, each);
    expect(await once(second.child, "close")).toEqual([1, null]);
    expect(second.printed()).toContain(`process ${first.child.pid}, on http://127.0.0.1:${port}`);
  }
  first.child.kill("SIGKILL");
  await once(first.child, "exit");
  const third = start(stateDir, otherPort);
  expect(await once(third.child, "close")).toEqual([1, null]);
  expect(third.printed()).toContain(`on http://127.0.0.1:${port}`);
  endGroup(first.child);
  const fourth = start(stateDir, otherPort);
  expect(await fourth.ready).toBe(`sallyport ready on http://127.0.0.1:${otherPort}`);
});
