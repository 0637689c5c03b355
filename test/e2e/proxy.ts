/** The real program, started the way a newcomer starts it, on a free port with a state folder of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dirname, "../..");
const READY_WITHIN_MS = 60_000;

export const OPERATOR_TOKEN = "operator-token-of-the-tests-0123456789abcdef";

export type Proxy = {
  url: string;
  stateDir: string;
  /** Everything the program has printed so far. */
  output(): string;
  /** Ends the whole process group at once, as a power cut would. */
  kill(): Promise<void>;
  /** Starts it again on the same state and port. */
  restart(): Promise<void>;
  /** Ends it and throws its state away. */
  stop(): Promise<void>;
};

/** @param settings settings of the proxy, by name */
export async function startProxy(settings: Record<string, string> = {}): Promise<Proxy> {
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

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        address !== null && typeof address === "object" ? resolve(address.port) : reject(new Error("no port")),
      );
    });
  });
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
