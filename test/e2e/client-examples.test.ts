/** The examples in the client's docstrings, run against the real program as they stand there. */
import { readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import * as library from "../../src/client/index.ts";
import { temporaryFolder } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

const FOLDER = join(import.meta.dirname, "../../src/client");

/** Modules that `index.ts` exports something of: each has an example. */
const modules = [...readFileSync(join(FOLDER, "index.ts"), "utf8").matchAll(/from "\.\/([\w/-]+)\.ts"/g)].map(
  ([, name = ""]) => name,
);

/** @returns the code of a module's examples */
function examplesOf(name: string): string[] {
  const text = readFileSync(join(FOLDER, `${name}.ts`), "utf8");
  const blocks = [...text.matchAll(/@example\n \* ```ts\n((?: \*.*\n)*?) \* ```/g)];
  return blocks.map(([, lines = ""]) => lines.replaceAll(/^ \* ?/gm, ""));
}

let proxy: Proxy;
let given: Record<string, unknown>;

const profile = { agentName: "agent", humanName: "Ann" };

beforeAll(async () => {
  proxy = await startProxy();
  const baseUrl = proxy.url;
  const operator = library.createOperatorClient({ baseUrl, token: OPERATOR_TOKEN });
  const register = async (name: string) => {
    const agentKeys = await library.generateKeys();
    const registration = { name, framework: "test", publicKey: agentKeys.publicKey };
    const { agentDid, ait, access, refreshToken } = await operator.registerAgent(registration);
    const registered = { agentDid, ait, access, refreshToken };
    const options = { baseUrl, keys: agentKeys, credential: registered };
    return { agentKeys, registered, client: library.createAgentClient(options) };
  };
  const [own, peer, other] = [await register("own"), await register("peer"), await register("other")];
  const { ticket } = await own.client.pairing.start({ profile });
  await peer.client.pairing.confirm({ ticket, profile });
  given = {
    baseUrl,
    operator,
    token: OPERATOR_TOKEN,
    keys: own.agentKeys,
    credential: own.registered,
    agent: own.client,
    agentDid: own.client.agentDid,
    save: () => undefined,
    peerDid: peer.client.agentDid,
    strangerDid: other.client.agentDid,
    other: other.client,
  };
});
afterAll(() => proxy.stop());

/** What an example needs that no other does. */
const preparations: Record<string, () => Promise<Record<string, unknown>>> = {
  /** A device that has been approved. */
  async "relay-client"() {
    const { agent, operator } = given as { agent: library.AgentClient; operator: library.OperatorClient };
    const keys = await library.generateKeys();
    const wanted = { publicKey: keys.publicKey, scopes: ["relay", "send"] as const };
    const { requestId, digest } = await agent.devices.request(wanted);
    await operator.devicesOf(agent.agentDid).approve({ requestId, digest });
    return { keys };
  },
  /** A credential that nobody else renews. */
  async "transport/agent-credential"() {
    const { operator } = given as { operator: library.OperatorClient };
    const keys = await library.generateKeys();
    const registration = { name: "renewed", framework: "test", publicKey: keys.publicKey };
    return { keys, credential: await operator.registerAgent(registration) };
  },
};

/** Runs an example; what it prints is compared with the comment behind it. @returns what was printed and expected */
async function run(code: string, names: Record<string, unknown>): Promise<[printed: string, expected: string][]> {
  const compared: [string, string][] = [];
  const compare = (expected: string, ...values: unknown[]): void =>
    void compared.push([values.map(String).join(" ").trimEnd(), expected]);
  const known = { ...library, ...names, compare, console: { log: () => undefined } };
  const runnable = code
    .replaceAll(/https:\/\/gate\.example\.com|http:\/\/127\.0\.0\.1:8787/g, proxy.url)
    .replaceAll(/console\.log\((.*)\); \/\/ (.*)$/gm, (_all, values: string, expected: string) => {
      return `compare(${JSON.stringify(expected)}, ${values});`;
    });
  const file = join(await temporaryFolder(), "example.mjs");
  const body = stripTypeScriptTypes(
    `export async function example({ ${Object.keys(known).join(", ")} }) {\n{\n${runnable}\n}\n}`,
  );
  await writeFile(file, body);
  const { example } = (await import(pathToFileURL(file).href)) as { example: (names: unknown) => Promise<void> };
  await example(known);
  return compared;
}

test("every module that is exported has an example, and nothing else of the folder is taken for one", () => {
  expect(modules.length).toBeGreaterThan(10);
  expect(modules.filter((name) => examplesOf(name).length === 0)).toEqual([]);
  const withExamples = readdirSync(FOLDER, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => file.replace(/\.ts$/, ""))
    .filter((name) => examplesOf(name).length > 0);
  expect(withExamples.toSorted()).toEqual([...new Set(modules)].toSorted());
});

test("every function that is exported is used in an example", () => {
  const code = modules.flatMap(examplesOf).join("\n");
  // Classes are functions too: errors are what a caller catches, and need no example each.
  const names = Object.entries(library)
    .filter(([, value]) => typeof value === "function" && !(value.prototype instanceof Error))
    .map(([name]) => name);
  expect(names.length).toBeGreaterThan(10);
  expect(names.filter((name) => !new RegExp(`\\b${name}\\(`).test(code))).toEqual([]);
});

// The example of trust ends every trust, and so is the last.
test.each(modules.filter((name) => name !== "methods/trust").concat("methods/trust"))(
  "the example of %s runs, and prints what stands behind it",
  async (name) => {
    for (const code of examplesOf(name)) {
      const compared = await run(code, { ...given, ...(await preparations[name]?.()) });
      expect(compared.length, "an example that prints nothing shows nothing").toBeGreaterThan(0);
      expect(compared.map(([printed]) => printed)).toEqual(compared.map(([, expected]) => expected));
    }
  },
);
