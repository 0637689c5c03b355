/** The real program for tests from outside, on a free port with a state folder of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OPERATOR_TOKEN } from "./agents.ts";
import { root } from "./bundle.ts";
import { withConstants } from "./constants.ts";
import { freePort } from "./ports.ts";
import { startProgram } from "./program.ts";

const READY_WITHIN_MS = 60_000;

export type Proxy = {
  url: string;
  stateDir: string;
  /** Everything the program has printed so far. */
  output(): string;
  /** Ends it at once, as a power cut would. */
  kill(): Promise<void>;
  /** Starts it again on the same state and port. */
  restart(): Promise<void>;
  /** Ends it and throws its state away. */
  stop(): Promise<void>;
};

/**
 * The program as it would be deployed, served by its runtime. Limits per address are off.
 *
 * @param settings settings of the proxy, by name
 * @param constants numbers in its code that are no settings, by name: for what it does after a time that a test will not wait
 */
export async function startProxy(
  settings: Record<string, string> = {},
  constants: Record<string, number> = {},
): Promise<Proxy> {
  const edit = (bundle: string): string => withConstants(bundle, constants);
  const program = await startProgram({ settings, keepsLog: true, isLimited: true, edit });
  // The first request starts what the program does by itself, as the wait of `npm run dev` for an answer does.
  const wake = async (): Promise<void> => void (await (await fetch(`${program.url}/health`)).text());
  await wake();
  return {
    url: program.url,
    stateDir: program.stateDir,
    output: () => program.log().join("\n"),
    kill: () => program.kill(false),
    async restart() {
      if (program.isUp()) await program.kill(false);
      await program.start();
      await wake();
    },
    stop: () => program.stop(),
  };
}

/**
 * The program started as a newcomer starts it, by `npm run dev`: several processes, and seconds until it answers.
 *
 * @param settings settings of the proxy, by name
 */
export async function startDevProxy(settings: Record<string, string> = {}): Promise<Proxy> {
  const stateDir = mkdtempSync(join(tmpdir(), "sallyport-"));
  const port = await freePort();
  let child: ChildProcess | null = null;
  let printed = "";

  const start = async (): Promise<void> => {
    const vars = Object.entries({
      OPERATOR_TOKEN,
      REGISTRY_SIGNING_SECRET: "signing-secret-of-the-tests-0123456789abcdef",
      RATE_LIMIT_PER_IP: "off",
      ...settings,
    });
    const started = spawn(
      process.execPath,
      [
        join(root, "scripts/dev.ts"),
        "--inspector-port",
        "0",
        ...vars.flatMap(([name, value]) => ["--var", `${name}:${value}`]),
      ],
      {
        cwd: root,
        env: { ...process.env, PORT: String(port), STATE_DIR: stateDir },
        detached: true,
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    child = started;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`not ready in time:\n${printed}`)), READY_WITHIN_MS);
      const from = printed.length;
      const read = (chunk: Buffer): void => {
        printed += chunk.toString();
        if (!printed.slice(from).includes("sallyport ready on")) return;
        clearTimeout(timer);
        resolve();
      };
      started.stdout?.on("data", read);
      started.stderr?.on("data", read);
      started.on("exit", (code) => {
        clearTimeout(timer);
        reject(new Error(`the proxy ended with ${code}:\n${printed}`));
      });
    });
  };

  const kill = async (): Promise<void> => {
    const running = child;
    child = null;
    if (running?.pid === undefined || running.exitCode !== null) return;
    const ended = new Promise((resolve) => running.on("exit", resolve));
    process.kill(-running.pid, "SIGKILL");
    await ended;
  };

  try {
    await start();
  } catch (error) {
    // What came up halfway would go on running beside whatever is tried next.
    await kill();
    rmSync(stateDir, { recursive: true, force: true });
    throw error;
  }
  return {
    url: `http://127.0.0.1:${port}`,
    stateDir,
    output: () => printed,
    kill,
    async restart() {
      await kill();
      await start();
    },
    async stop() {
      await kill();
      rmSync(stateDir, { recursive: true, force: true });
    },
  };
}

/** The structured lines among what was printed. */
export function logLines(output: string): Record<string, unknown>[] {
  return (
    output
      .split("\n")
      // Warnings and errors stand between the codes of a colour.
      .map((line) => line.slice(Math.max(0, line.indexOf("{")), line.lastIndexOf("}") + 1))
      .filter((line) => line.startsWith('{"level"'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  );
}
