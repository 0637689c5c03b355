/** The process that serves without Cloudflare: the clock, the database, and a log that comes faster than anybody reads it. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Host, openHost } from "../../scripts/self-hosted/host.ts";
import { temporaryFolder } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { freePort } from "../support/program/ports.ts";
import { builtBundle, startProgram } from "../support/program/program.ts";

const EXPORT = "worker_default as default";

/** A Worker that writes 40 MB of log on `/flood`, which is more than any pipe holds. */
function flooding(bundle: string): string {
  expect(bundle).toContain(EXPORT);
  return `${bundle.replace(EXPORT, "flooding as default")}
    const flooding = { ...worker_default, fetch(request, env, ctx) {
      if (!request.url.endsWith("/flood")) return worker_default.fetch(request, env, ctx);
      for (let line = 0; line < 20_000; line += 1) console.log("x".repeat(2_000));
      return new Response("flooded");
    } };`;
}

test("while it is flooded it asks the database, and neither waits for the other for ever", async () => {
  const program = await startProgram({ edit: flooding, keepsLog: true });
  try {
    const flooded = fetch(`${program.url}/flood`).then((response) => response.text());
    await expect.poll(() => program.log().length).toBeGreaterThan(0);
    expect(await program.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
    expect(await flooded).toBe("flooded");
  } finally {
    await program.stop();
  }
});

const settings = { OPERATOR_TOKEN, REGISTRY_SIGNING_SECRET: "signing-secret-of-the-tests-0123456789abcdef" };

async function open(stateDir: string, port: number): Promise<Host> {
  const bundle = await builtBundle();
  return openHost({
    bundle: () => bundle,
    stateDir,
    address: "127.0.0.1",
    port,
    settings,
    onLine: () => undefined,
  });
}

test("it fires what the clock fires, and answers nobody else who asks the database", async () => {
  const port = await freePort();
  const host = await open(await temporaryFolder(), port);
  try {
    expect(await host.fireCron()).toMatchObject({ outcome: "ok" });
    await expect(host.query([{ sql: "SELECT * FROM missing" }])).rejects.toThrow("no such table");
    for (const [name, value] of [
      ["MF-Original-URL", "http://keeper.invalid/"],
      ["MF-Route-Override", "keeper"],
    ] as const) {
      const asked = { method: "POST", headers: { [name]: value }, body: JSON.stringify({ statements: [] }) };
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect((await fetch(`http://127.0.0.1:${port}/`, asked)).status).toBe(404);
    }
  } finally {
    await host.stop();
  }
});

test("a newer version serves nobody before its migrations are in", async () => {
  const [port, stateDir] = [await freePort(), await temporaryFolder()];
  const before = await open(stateDir, port);
  // As an older version would have left it, but that the newest migration cannot be applied.
  await before.query([{ sql: "DELETE FROM d1_migrations WHERE name = (SELECT MAX(name) FROM d1_migrations)" }]);
  await before.stop();
  await writeFile(join(stateDir, "schema"), "0001_registry.sql");

  let hasFailed = false;
  let served = 0;
  const failing = open(stateDir, port).finally(() => void (hasFailed = true));
  failing.catch(() => undefined);
  while (!hasFailed) {
    // oxlint-disable-next-line no-await-in-loop -- one attempt after the other
    await fetch(`http://127.0.0.1:${port}/health`).then(
      () => (served += 1),
      () => new Promise((resolve) => setTimeout(resolve, 5)),
    );
  }
  await expect(failing).rejects.toThrow("already exists");
  expect(served).toBe(0);
});

test("a state that an older version has left is migrated, and then served", async () => {
  const [port, stateDir] = [await freePort(), await temporaryFolder()];
  await (await open(stateDir, port)).stop();
  await writeFile(join(stateDir, "schema"), "0001_registry.sql");
  const host = await open(stateDir, port);
  try {
    expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(200);
    expect(await host.query([{ sql: "SELECT 1 AS one" }])).toEqual([[{ one: 1 }]]);
  } finally {
    await host.stop();
  }
});
