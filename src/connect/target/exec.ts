/** Hands messages to a command, a process each: the payload on its standard input, and nothing of a peer's anywhere else. */
import { spawn } from "node:child_process";
import { cutToCodePoints } from "../../wire/text.ts";
import { type Delivery, type Outcome, REASON_MAX, type Target } from "../message.ts";

/** What a command is run with. */
export type ExecTargetOptions = {
  /** The user's own command line, for the shell; nothing of a message is ever put into it. */
  readonly command: string;
  readonly environment: NodeJS.ProcessEnv;
  /** How long it may take before it is ended. */
  readonly timeoutMs: number;
};

/** `EX_DATAERR` of sysexits.h: this message will never be taken. */
const EX_DATAERR = 65;
const KILL_AFTER_MS = 5_000;
const STDERR_KEPT = 8_192;
/** What it leaves running may hold its error stream open: so long after its exit that is read for what it has said itself. */
const STDERR_AFTER_EXIT_MS = 500;
/** A conversation's id that needs no care in an environment; any other is in the message's own text alone, if at all. */
const PLAIN_ID = /^[A-Za-z0-9._:@/-]{1,256}$/;

/** @returns the target; exit 0 is handled, 65 is refused with the last line of its error stream, anything else is later */
export function execTarget({ command, environment, timeoutMs }: ExecTargetOptions): Target {
  return (message, signal) =>
    new Promise<Outcome>((resolve, reject) => {
      // A group of its own, so that what it has started ends with it.
      const child = spawn("/bin/sh", ["-c", command], {
        env: { ...environment, ...environmentOf(message) },
        stdio: ["pipe", "ignore", "pipe"],
        detached: true,
      });
      let said = "";
      let isLate = false;
      const kill = (how: NodeJS.Signals): void => {
        if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) killGroup(child.pid, how);
      };
      const end = (): void => {
        kill("SIGTERM");
        setTimeout(() => kill("SIGKILL"), KILL_AFTER_MS).unref();
      };
      const timer = setTimeout(() => {
        isLate = true;
        end();
      }, timeoutMs);
      signal.addEventListener("abort", end, { once: true });
      child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-STDERR_KEPT)));
      // A command that reads nothing is none of our business: its exit says what it made of the message.
      child.stdin.on("error", () => undefined);
      child.stdin.end(message.payloadText);
      child.on("exit", () => setTimeout(() => child.stderr.destroy(), STDERR_AFTER_EXIT_MS).unref());
      child.on("error", (error) => settle(() => resolve({ kind: "later", reason: error.message })));
      child.on("close", (code, killedBy) =>
        settle(() => {
          if (signal.aborted) reject(signal.reason as Error);
          else
            resolve(
              isLate ? { kind: "later", reason: `not done within ${timeoutMs} ms` } : outcomeOf(code, killedBy, said),
            );
        }),
      );
      const settle = (done: () => void): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        done();
      };
    });
}

function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // It has ended meanwhile.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

function environmentOf({
  deliveryId,
  fromAgentDid,
  fromSubject,
  toAgentDid,
  conversationId,
}: Delivery): NodeJS.ProcessEnv {
  const plain = conversationId !== undefined && PLAIN_ID.test(conversationId) ? conversationId : "";
  return {
    SALLYPORT_DELIVERY_ID: deliveryId,
    SALLYPORT_FROM_AGENT_DID: fromAgentDid ?? "",
    SALLYPORT_FROM_SUBJECT: fromSubject ?? "",
    SALLYPORT_TO_AGENT_DID: toAgentDid,
    SALLYPORT_CONVERSATION_ID: plain,
  };
}

function outcomeOf(code: number | null, signal: NodeJS.Signals | null, said: string): Outcome {
  if (code === 0) return { kind: "handled" };
  const last = said.trimEnd().split("\n").at(-1)?.trim() ?? "";
  if (code === EX_DATAERR) {
    return { kind: "refused", reason: cutToCodePoints(last === "" ? "refused by the program" : last, REASON_MAX) };
  }
  const why = code === null ? `ended by ${signal ?? "a signal"}` : `exit code ${code}`;
  return { kind: "later", reason: last === "" ? why : `${why}: ${last}` };
}
