/** The process that serves without Cloudflare: the clock, the database, and a log that comes faster than anybody reads it. */
import { expect, test } from "vitest";
import { openHost } from "../../scripts/self-hosted/host.ts";
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

test("it fires what the clock fires, and answers nobody else who asks the database", async () => {
  const bundle = await builtBundle();
  const port = await freePort();
  const settings = { OPERATOR_TOKEN, REGISTRY_SIGNING_SECRET: "signing-secret-of-the-tests-0123456789abcdef" };
  const host = await openHost({
    bundle: () => bundle,
    stateDir: await temporaryFolder(),
    address: "127.0.0.1",
    port,
    settings,
    onLine: () => undefined,
  });
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
