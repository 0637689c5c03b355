/** An agent with a connector of its own, and one that writes to it, against the real program. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, onTestFinished } from "vitest";
import { newInnerRunner, PROGRAM, type Runner, temporaryFolder } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";

/** A machine with two agents that trust each other; Bob gets a connector. */
export async function machine(url: string): Promise<{ runner: Runner; alice: string; bob: string }> {
  const runner = await newInnerRunner();
  const tokenFile = join(await temporaryFolder(), ".dev.vars");
  await writeFile(tokenFile, `OPERATOR_TOKEN="${OPERATOR_TOKEN}"\n`);
  await runner.json(["init", "--url", url, "--human-name", "Ann", "--operator-token-file", tokenFile]);
  const alice = (await runner.json(["agent", "register", "alice"])) as { agentDid: string };
  const bob = (await runner.json(["agent", "register", "bob"])) as { agentDid: string };
  const { ticket } = (await runner.json(["pair", "start", "--agent", "alice"])) as { ticket: string };
  await runner.json(["pair", "confirm", "-", "--agent", "bob"], ticket);
  return { runner, alice: alice.agentDid, bob: bob.agentDid };
}

export type Running = {
  child: ChildProcess;
  said: () => string;
  api: string;
  token: string;
  ended: Promise<number | null>;
};

/** Starts Bob's connector, and waits until it listens. @param shell what starts it, e.g. with a limit */
export async function connectBob(runner: Runner, args: readonly string[], shell = 'exec "$0" "$@"'): Promise<Running> {
  const child = spawn("sh", ["-c", shell, PROGRAM, "--agent", "bob", "connect", "--listen", "0", ...args], {
    env: { PATH: process.env["PATH"] ?? "", HOME: runner.home, SALLYPORT_HOME: runner.home },
    stdio: ["ignore", "ignore", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const ended = once(child, "close").then(([code]) => code as number | null);
  await expect.poll(() => said).toMatch(/bob listens[^]*local API on|local API on[^]*bob listens/);
  const api = /local API on (\S+),/.exec(said)?.[1] ?? "";
  const token = (await readFile(join(runner.home, "connect/bob/token"), "utf8")).trim();
  return { child, said: () => said, api, token, ended };
}

export type Got = { headers: Record<string, unknown>; body: string };

/** The program behind the connector. */
export async function program(answer: (got: Got, response: ServerResponse, count: number) => void) {
  const got: Got[] = [];
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      const one = { headers: request.headers, body };
      got.push(one);
      answer(one, response, got.length);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, got };
}

export const send = async (runner: Runner, payload: string, ...args: string[]): Promise<string> =>
  ((await runner.json(["send", "bob", payload, "--agent", "alice", ...args])) as { deliveryId: string }).deliveryId;
export const stateOf = async (runner: Runner, id: string): Promise<string> =>
  ((await runner.json(["delivery", id, "--agent", "alice"])) as { state: string }).state;
export const payloads = (got: readonly Got[]): unknown[] =>
  got.map(({ body }) => (JSON.parse(body) as { payload: unknown }).payload);
