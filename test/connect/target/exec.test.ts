/** A command, a process for each message. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Delivery, Outcome } from "../../../src/connect/message.ts";
import { execTarget } from "../../../src/connect/target/exec.ts";
import { temporaryFolder } from "../../cli/program.ts";
import { ALICE, delivery } from "../deliveries.ts";

function run(
  command: string,
  message: Partial<Delivery> = {},
  how: { timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<Outcome> {
  const target = execTarget({ command, environment: process.env, timeoutMs: how.timeoutMs ?? 10_000 });
  return target(delivery(message), how.signal ?? new AbortController().signal);
}

describe("its exit", () => {
  test.each([
    { command: "exit 0", outcome: { kind: "handled" } },
    { command: "exit 65", outcome: { kind: "refused", reason: "refused by the program" } },
    { command: "echo details >&2; echo 'not my job' >&2; exit 65", outcome: { kind: "refused", reason: "not my job" } },
    { command: "exit 1", outcome: { kind: "later", reason: "exit code 1" } },
    { command: "echo oops >&2; exit 75", outcome: { kind: "later", reason: "exit code 75: oops" } },
    { command: "kill -9 $$", outcome: { kind: "later", reason: "ended by SIGKILL" } },
    { command: "/no/such/program", outcome: { kind: "later", reason: expect.stringContaining("127") as string } },
  ])("$command", async ({ command, outcome }) => expect(await run(command)).toEqual(outcome));
});

test("the payload comes on standard input to the byte, and the rest in the environment", async () => {
  const folder = await temporaryFolder();
  const command = `cat > '${folder}/in'; env | grep ^SALLYPORT_ > '${folder}/env'`;
  const payloadText = '{"n": 1e400, "s": "\\u00e9$(touch x)"}';
  expect(await run(command, { payloadText, deliveryId: "D1", conversationId: "thread-1" })).toEqual({
    kind: "handled",
  });
  expect(await readFile(join(folder, "in"), "utf8")).toBe(payloadText);
  const environment = await readFile(join(folder, "env"), "utf8");
  for (const line of [
    "SALLYPORT_DELIVERY_ID=D1",
    `SALLYPORT_FROM_AGENT_DID=${ALICE}`,
    "SALLYPORT_CONVERSATION_ID=thread-1",
  ])
    expect(environment).toContain(line);
});

test.each(["$(touch pwned)", "a;b", "() { :;}; echo x", "a\u00e9b", "`id`"])(
  "text of a peer's choosing is not in the environment: %s",
  async (conversationId) => {
    expect(await run('test -z "$SALLYPORT_CONVERSATION_ID"', { conversationId })).toEqual({ kind: "handled" });
  },
);

test("what it leaves running in the background holds nobody up", async () => {
  const folder = await temporaryFolder();
  const outcome = await run(`sleep 100 & echo $! > '${folder}/pid'; echo 'not my job' >&2; exit 65`);
  expect(outcome).toEqual({ kind: "refused", reason: "not my job" });
  process.kill(Number(await readFile(join(folder, "pid"), "utf8")), "SIGKILL");
});

test("one that takes too long is ended with all that it has started", async () => {
  const folder = await temporaryFolder();
  const command = `sh -c 'echo $$ > ${folder}/pid; exec sleep 100'; true`;
  expect(await run(command, {}, { timeoutMs: 300 })).toEqual({ kind: "later", reason: "not done within 300 ms" });
  const pid = Number(await readFile(join(folder, "pid"), "utf8"));
  await expect.poll(() => isRunning(pid)).toBe(false);
});

test("one that reads nothing of a large payload is judged by its exit", async () => {
  expect(await run("exit 0", { payloadText: JSON.stringify("x".repeat(1_000_000)) })).toEqual({ kind: "handled" });
});

test("the connector ends meanwhile: the command ends, and it is as if it had not been run", async () => {
  const abort = new AbortController();
  const running = run("sleep 100", {}, { signal: abort.signal });
  setTimeout(() => abort.abort(new Error("the connector ends")), 50);
  await expect(running).rejects.toThrow("the connector ends");
});

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ESRCH") return false;
    throw error;
  }
}
