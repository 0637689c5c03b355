/** A machine with an agent that is registered at a server of the test's own. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { newInnerRunner } from "./program.ts";
import { type Answering, startRegistry, TOKEN } from "./registry-server.ts";

/** @param override what the server answers otherwise */
export async function setUp(override?: Answering) {
  const registry = await startRegistry(override);
  const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: TOKEN });
  await runner.json(["init", "--url", registry.url, "--human-name", "Ann", "--no-check"]);
  await runner.json(["agent", "register", "Scout"]);
  const agentFile = join(runner.home, "agents/Scout.json");
  const stored = async () => JSON.parse(await readFile(agentFile, "utf8")) as Record<string, unknown>;
  const change = async (members: Record<string, unknown>) =>
    writeFile(agentFile, JSON.stringify({ ...(await stored()), ...members }));
  return { ...registry, runner, agentFile, stored, change };
}
