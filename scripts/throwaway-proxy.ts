/** The real program, started the way `npm run dev` starts it, on a free port, with secrets and a state folder that are thrown away. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const READY_WITHIN_MS = 90_000;

/** A program of its own, which can be killed and started again. */
export type ThrowawayProxy = {
  readonly url: string;
  readonly operatorToken: string;
  /** Everything the program has printed so far. */
  output(): string;
  /** Ends the whole process group with SIGKILL, as a power cut would. */
  kill(): Promise<void>;
  /** Starts it; after a kill, again on the same state and port. @throws Error when it is not ready in time */
  start(): Promise<void>;
};

/**
 * @returns a proxy that is not started yet, and lives no longer than this process: however this process ends, the proxy
 * ends with it.
 */
export async function createThrowawayProxy(): Promise<ThrowawayProxy> {
  const stateDir = mkdtempSync(join(tmpdir(), "sallyport-"));
  const temporaryDir = join(stateDir, "tmp");
  mkdirSync(temporaryDir);
  const port = await freePort();
  const operatorToken = randomSecret();
  const settings = { OPERATOR_TOKEN: operatorToken, REGISTRY_SIGNING_SECRET: randomSecret() };
  const vars = Object.entries(settings).flatMap(([name, value]) => ["--var", `${name}:${value}`]);
  let child: ChildProcess | null = null;
  let printed = "";

  const killNow = (): void => {
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    process.kill(-child.pid, "SIGKILL");
  };

  const start = async (): Promise<void> => {
    const started = spawn(process.execPath, [join(import.meta.dirname, "dev.ts"), "--inspector-port", "0", ...vars], {
      // Killed programs leave their temporary files behind: those go the way of the state.
      env: { ...process.env, PORT: String(port), STATE_DIR: stateDir, TMPDIR: temporaryDir },
      // A group of its own, so that all of it can be ended at once; a channel, so that it notices when this process is gone.
      detached: true,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    child = started;
    const printedBefore = printed.length;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the proxy was not ready in time")), READY_WITHIN_MS);
      const read = (chunk: Buffer): void => {
        printed += chunk.toString();
        if (!printed.slice(printedBefore).includes("sallyport ready on")) return;
        clearTimeout(timer);
        resolve();
      };
      started.stdout?.on("data", read);
      started.stderr?.on("data", read);
      started.on("error", reject);
      started.on("exit", (code) => {
        clearTimeout(timer);
        reject(new Error(`the proxy ended with status ${String(code)}`));
      });
    });
  };

  process.on("exit", () => {
    killNow();
    // Its processes may still be writing for a moment.
    rmSync(stateDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1));

  return {
    url: `http://127.0.0.1:${port}`,
    operatorToken,
    output: () => printed,
    start,
    async kill() {
      const running = child;
      if (running === null) return;
      const ended = new Promise((resolve) => running.on("exit", resolve));
      killNow();
      await ended;
    },
  };
}

function randomSecret(): string {
  return randomBytes(32).toString("base64url");
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === "object") resolve(address.port);
        else reject(new Error("the system gave no port"));
      });
    });
  });
}
