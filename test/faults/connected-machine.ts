/** A machine with an agent, its connector and the program behind it, each a process of its own; and agents that write to it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openInboxStore } from "../../src/connect/store/inbox.ts";
import {
  type AgentClient,
  createAgentClient,
  createOperatorClient,
  exportKeys,
  generateKeys,
} from "../../src/client/index.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { root } from "../support/program/bundle.ts";
import { freePort } from "../support/program/ports.ts";

/** What the program has taken, in its order. */
export type Taken = {
  readonly atMs: number;
  readonly deliveryId: string;
  readonly fromAgentDid: string | null;
  readonly payload: unknown;
};

export type ConnectedMachine = {
  readonly agentDid: string;
  readonly senders: readonly AgentClient[];
  startConnector(): void;
  startProgram(): void;
  killConnector(): Promise<void>;
  killProgram(): Promise<void>;
  /** What the program has on its disk. */
  taken(): Taken[];
  /** Whether a message is on the connector's disk. The connector must not run. */
  has(deliveryIds: readonly string[]): boolean[];
  /** What the connector has said. */
  said(): string;
  stop(): Promise<void>;
};

/** @param url of the gate @param senders how many write to the agent */
export async function createMachine(url: string, senders: number): Promise<ConnectedMachine> {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-connected-"));
  const home = join(folder, "home");
  mkdirSync(join(home, "agents"), { recursive: true, mode: 0o700 });
  const log = join(folder, "taken.jsonl");
  const port = await freePort();
  const operator = createOperatorClient({ baseUrl: url, token: OPERATOR_TOKEN });

  const register = async (name: string) => {
    const keys = await generateKeys();
    const registered = await operator.registerAgent({ name, framework: "test", publicKey: keys.publicKey });
    return { keys, registered, client: createAgentClient({ baseUrl: url, keys, credential: registered }) };
  };
  const bob = await register("bob");
  const { agentDid, ownerDid, ait, access, refreshToken } = bob.registered;
  const record = {
    name: "bob",
    baseUrl: url,
    agentDid,
    ownerDid,
    ait,
    access,
    refreshToken,
    keys: await exportKeys(bob.keys),
  };
  writeFileSync(join(home, "agents/bob.json"), JSON.stringify(record), { mode: 0o600 });
  const profile = { agentName: "agent", humanName: "Ann" };
  const clients: AgentClient[] = [];
  for (let i = 0; i < senders; i += 1) {
    // oxlint-disable no-await-in-loop -- one ticket after the other
    const { client } = await register(`sender ${i}`);
    const { ticket } = await client.pairing.start({ profile });
    await bob.client.pairing.confirm({ ticket, profile });
    // oxlint-enable no-await-in-loop
    clients.push(client);
  }

  let connector: ChildProcess | null = null;
  let program: ChildProcess | null = null;
  let said = "";
  const kill = async (child: ChildProcess | null): Promise<void> => {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  const end = (): void => {
    connector?.kill("SIGKILL");
    program?.kill("SIGKILL");
  };
  process.on("exit", end);

  return {
    agentDid,
    senders: clients,
    startConnector() {
      const to = `http://127.0.0.1:${port}/hook`;
      const args = ["--agent", "bob", "connect", "--no-listen", "--inbox", "--forward-to", to];
      const child = spawn(process.execPath, [join(root, "src/cli/main.ts"), ...args], {
        env: { PATH: process.env["PATH"] ?? "", HOME: home, SALLYPORT_HOME: home },
        stdio: ["ignore", "ignore", "pipe"],
      });
      child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
      connector = child;
    },
    startProgram() {
      program = spawn(process.execPath, [join(import.meta.dirname, "connector-program.ts"), String(port), log], {
        stdio: ["ignore", "ignore", "inherit"],
      });
    },
    killConnector: () => kill(connector),
    killProgram: () => kill(program),
    taken: () => (existsSync(log) ? readFileSync(log, "utf8") : "").split("\n").flatMap(lineOf),
    has(deliveryIds) {
      const inbox = openInboxStore(join(home, "connect/bob/inbox.sqlite"));
      const there = deliveryIds.map((id) => inbox.get(id) !== null);
      inbox.close();
      return there;
    },
    said: () => said,
    async stop() {
      process.off("exit", end);
      await Promise.all([kill(connector), kill(program)]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A line that was cut by a kill is none. */
function lineOf(line: string): Taken[] {
  try {
    return [JSON.parse(line) as Taken];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}
