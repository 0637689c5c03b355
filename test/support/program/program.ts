/** The program as the driver holds it: started, killed, started again on the same state and the same port. */
import { type ChildProcess, fork } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildBundle } from "./bundle.ts";
import { freePort } from "./ports.ts";
import type { HostAnswer, HostPlan, HostQuery } from "./miniflare-host.ts";

const READY_WITHIN_MS = 60_000;
const REVIVED_WITHIN_MS = 15_000;
const QUERY_WITHIN_MS = 20_000;

export type Program = {
  readonly url: string;
  readonly port: number;
  readonly stateDir: string;
  /** How often it has been started. */
  boots(): number;
  isUp(): boolean;
  /** Warnings and errors of its log, the last thousand. */
  complaints(): readonly string[];
  /** Its whole log, one line an entry, where it was started with `keepsLog`. */
  log(): readonly string[];
  start(): Promise<void>;
  /** Ends workerd at once, as a power cut would; `whole` ends the process that started it too, which takes longer to come back. */
  kill(whole?: boolean): Promise<void>;
  /** One statement on D1, past the program. */
  query(sql: string): Promise<Record<string, unknown>[]>;
  /** Resident memory of workerd, in bytes. */
  residentBytes(): number;
  /** Ends it and throws its state away. */
  stop(): Promise<void>;
};

export type ProgramOptions = {
  settings?: Record<string, string>;
  /** Whether every line of its log is kept. */
  keepsLog?: boolean;
  /** Whether the limits of the configuration hold; without them one client may stand for many. */
  isLimited?: boolean;
  /** Where the state lies; a folder of its own by default. */
  stateDir?: string;
  /** Changes the built bundle: for constants that are no settings. */
  edit?: (bundle: string) => string;
};

const living = new Set<() => void>();
process.on("exit", () => {
  for (const end of living) end();
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1));

let built: Promise<string> | null = null;

/** The program as it would be deployed, built once a run; `SALLYPORT_BUNDLE` names one that is built already. */
export async function builtBundle(): Promise<string> {
  const given = process.env["SALLYPORT_BUNDLE"];
  if (given !== undefined) return readFileSync(given, "utf8");
  const folder = mkdtempSync(join(tmpdir(), "sallyport-bundle-"));
  try {
    const [entry, ...others] = (await buildBundle(folder)).modules;
    if (entry === undefined || typeof entry.contents !== "string" || others.length > 0)
      throw new Error("the bundle is not one script");
    return entry.contents;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Builds the bundle and starts it. */
export async function startProgram({
  settings = {},
  keepsLog = false,
  isLimited = false,
  stateDir: givenDir,
  edit,
}: ProgramOptions = {}): Promise<Program> {
  const workDir = mkdtempSync(join(tmpdir(), "sallyport-proof-"));
  const stateDir = givenDir ?? join(workDir, "state");
  mkdirSync(stateDir, { recursive: true });
  built ??= builtBundle();
  const contents = await built;
  const bundle = join(workDir, "worker.js");
  writeFileSync(bundle, edit === undefined ? contents : edit(contents));
  const port = await freePort();
  const limits = { RATE_LIMIT_PER_IP: "off", ...(isLimited ? {} : { RATE_LIMIT_PER_AGENT: "0" }) };
  const plan: HostPlan = { bundle, stateDir, port, settings: { ...limits, ...settings }, isVerbose: keepsLog };

  let child: ChildProcess | null = null;
  let boots = 0;
  let isDown = false;
  let queries = 0;
  const complaints: string[] = [];
  const log: string[] = [];
  const waiting = new Map<
    number,
    { resolve: (rows: Record<string, unknown>[]) => void; reject: (error: Error) => void }
  >();

  const killNow = (): void => {
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    process.kill(-child.pid, "SIGKILL");
  };
  living.add(killNow);

  const isHosted = (): boolean =>
    child !== null && child.exitCode === null && child.signalCode === null && child.connected;

  const start = async (): Promise<void> => {
    if (!isHosted()) await launch();
    else if (!(await revived())) {
      killNow();
      await launch();
    }
    isDown = false;
    boots += 1;
  };

  /** A new workerd under the host that is there. */
  const revived = (): Promise<boolean> =>
    new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), REVIVED_WITHIN_MS);
      const host = child;
      const heard = (answer: HostAnswer): void => {
        if (answer.kind === "ready") done(true);
      };
      const ended = (): void => done(false);
      const done = (came: boolean): void => {
        clearTimeout(timer);
        host?.off("message", heard);
        host?.off("exit", ended);
        resolve(came);
      };
      host?.on("message", heard);
      host?.on("exit", ended);
      host?.send({ kind: "revive" } satisfies HostQuery);
    });

  const launch = async (): Promise<void> => {
    const started = fork(join(import.meta.dirname, "miniflare-host.ts"), [JSON.stringify(plan)], {
      detached: true,
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      env: { ...process.env, TMPDIR: workDir },
    });
    child = started;
    let said = "";
    started.stderr?.on("data", (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4_000)));
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the program was not ready in time: ${said}`)), READY_WITHIN_MS);
      started.on("exit", (code) => {
        clearTimeout(timer);
        for (const { reject: rejectQuery } of waiting.values()) rejectQuery(new Error("the program was killed"));
        waiting.clear();
        reject(new Error(`the program ended with ${code}: ${said}`));
      });
      started.on("message", (answer: HostAnswer) => {
        if (answer.kind === "line") {
          if (keepsLog) log.push(answer.line);
          if (answer.level !== "error" && answer.level !== "warn") return;
          complaints.push(answer.line.slice(0, 1_000));
          if (complaints.length > 1_000) complaints.shift();
        } else if (answer.kind === "rows") {
          const asked = waiting.get(answer.id);
          waiting.delete(answer.id);
          if (answer.error === undefined) asked?.resolve(answer.rows);
          else asked?.reject(new Error(answer.error));
        } else {
          clearTimeout(timer);
          resolve();
        }
      });
    });
  };

  const kill = async (whole = true): Promise<void> => {
    const running = child;
    isDown = true;
    if (running === null || running.exitCode !== null || running.signalCode !== null) return;
    const workers = whole ? [] : workersOf(running.pid ?? 0);
    if (workers.length > 0) {
      for (const { pid } of workers) process.kill(pid, "SIGKILL");
      // oxlint-disable-next-line no-await-in-loop -- until the system says that they are gone
      while (workersOf(running.pid ?? 0).length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
      return;
    }
    const ended = new Promise((resolve) => running.on("exit", resolve));
    killNow();
    await ended;
  };

  await start();
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    stateDir,
    boots: () => boots,
    isUp: () => !isDown && isHosted(),
    complaints: () => complaints,
    log: () => log,
    start,
    kill,
    query(sql) {
      const id = (queries += 1);
      const rows = new Promise<Record<string, unknown>[]>((resolve, reject) => waiting.set(id, { resolve, reject }));
      child?.send({ kind: "query", id, sql } satisfies HostQuery);
      return inTime(rows);
    },
    residentBytes: () =>
      child?.pid === undefined ? 0 : workersOf(child.pid).reduce((sum, { residentBytes }) => sum + residentBytes, 0),
    async stop() {
      await kill();
      living.delete(killNow);
      rmSync(workDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    },
  };
}

/** @throws Error when the database has not answered in its time */
function inTime<T>(answer: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("the database did not answer in time")), QUERY_WITHIN_MS);
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

/** The workerd processes of a group, and their resident memory. Linux alone says it; elsewhere there are none. */
function workersOf(group: number): { pid: number; residentBytes: number }[] {
  if (!existsSync("/proc/self/stat")) return [];
  const found: { pid: number; residentBytes: number }[] = [];
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      const [, state, groupId] = /\) (\S) \d+ (\d+)/.exec(stat) ?? [];
      if (Number(groupId) !== group || state === "Z" || !stat.includes("(workerd)")) continue;
      const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${name}/status`, "utf8")) ?? [];
      found.push({ pid: Number(name), residentBytes: Number(kilobytes ?? 0) * 1_024 });
    } catch (error) {
      // A process that has ended meanwhile.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT" && (error as NodeJS.ErrnoException).code !== "ESRCH")
        throw error;
    }
  }
  return found;
}

/** Bytes of all files below a folder. */
export function sizeOnDisk(folder: string): number {
  let total = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    try {
      total += statSync(join(entry.parentPath, entry.name)).size;
    } catch (error) {
      // A journal that has gone meanwhile.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  return total;
}
