/** `npm run serve`: the program without Cloudflare, as a supervisor would start and end it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseEnv } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { temporaryFolder } from "../cli/program.ts";
import { freePort } from "../support/program/ports.ts";

const SERVE = join(import.meta.dirname, "../../scripts/serve.ts");
const ISSUER = { REGISTRY_ISSUER: "https://agents.alice-and-sons.com" };

type Started = {
  child: ChildProcess;
  ended: Promise<[number | null, string | null]>;
  said: () => string;
  ready: Promise<void>;
};

function start(stateDir: string, port: number, settings: Record<string, string> = ISSUER): Started {
  const child = spawn(process.execPath, [SERVE], {
    env: { ...process.env, STATE_DIR: stateDir, PORT: String(port), REGISTRY_ISSUER: "", ...settings },
    stdio: ["ignore", "pipe", "pipe"],
    // A group of its own, so that all of it can be ended.
    detached: true,
  });
  onTestFinished(() => endGroup(child));
  let said = "";
  const ready = new Promise<void>((resolve) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      said += `${line}\n`;
      if (line.startsWith("sallyport ready on")) resolve();
    });
  });
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  return { child, ended, said: () => said, ready };
}

function endGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

async function registerAgent(url: string, token: string): Promise<Response> {
  return fetch(`${url}/v1/agents`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify({
      name: "alice",
      framework: "test",
      publicKey: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }),
  });
}

test("what was registered outlasts SIGKILL of everything, and a second process on the same state is refused", async () => {
  const stateDir = await temporaryFolder();
  const [port, other] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const first = start(stateDir, port);
  await first.ready;
  const secretsFile = join(stateDir, "secrets.env");
  expect(first.said()).toContain(secretsFile);
  expect((await stat(secretsFile)).mode & 0o077).toBe(0);
  const { OPERATOR_TOKEN: token = "" } = parseEnv(await readFile(secretsFile, "utf8"));
  expect(first.said()).not.toContain(token);
  expect((await registerAgent(url, token)).status).toBe(201);

  const second = start(stateDir, other);
  expect(await second.ended).toEqual([78, null]);
  expect(second.said()).toContain(`process ${first.child.pid}`);

  endGroup(first.child);
  await first.ended;
  const third = start(stateDir, port);
  await third.ready;
  const listed = await fetch(`${url}/v1/agents`, { headers: { Authorization: `Bearer ${token}` } });
  expect(await listed.json()).toMatchObject({ agents: [{ name: "alice" }] });
  third.child.kill("SIGTERM");
  expect(await third.ended).toEqual([0, null]);
  await expect(fetch(url)).rejects.toThrow(/fetch failed/);
});

describe("is refused before it serves, by the setting's name and without a guess", () => {
  test.each([
    {
      what: "the issuer that wrangler.toml begins with",
      settings: {},
      says: "REGISTRY_ISSUER registry.sallyport.example",
    },
    { what: "a number out of its bounds", settings: { ...ISSUER, ACCESS_TTL_MS: "5" }, says: "ACCESS_TTL_MS" },
    { what: "a short token", settings: { ...ISSUER, OPERATOR_TOKEN: "short" }, says: "OPERATOR_TOKEN" },
    { what: "no port", settings: { ...ISSUER, PORT: "many" }, says: "PORT" },
  ])("$what", async ({ settings, says }) => {
    const started = start(await temporaryFolder(), await freePort(), settings);
    expect(await started.ended).toEqual([78, null]);
    expect(started.said()).toContain(says);
  });
});

test("secrets that the environment gives are used, and none are made", async () => {
  const stateDir = await temporaryFolder();
  const port = await freePort();
  const secrets = { OPERATOR_TOKEN: "o".repeat(40), REGISTRY_SIGNING_SECRET: "s".repeat(40) };
  const { ready } = start(stateDir, port, { ...ISSUER, ...secrets });
  await ready;
  expect((await registerAgent(`http://127.0.0.1:${port}`, secrets.OPERATOR_TOKEN)).status).toBe(201);
  await expect(stat(join(stateDir, "secrets.env"))).rejects.toThrow(/ENOENT/);
});

test("a folder whose file of secrets lacks one is refused: a new secret would not fit the keys that are there", async () => {
  const stateDir = await temporaryFolder();
  await writeFile(join(stateDir, "secrets.env"), "OPERATOR_TOKEN=\n");
  const started = start(stateDir, await freePort());
  expect(await started.ended).toEqual([78, null]);
  expect(started.said()).toContain("REGISTRY_SIGNING_SECRET");
});
