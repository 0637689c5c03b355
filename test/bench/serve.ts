/** Serves a bundle in Miniflare, with its state on disk in a folder of its own, on a free port of this machine. */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertV4MiniflareOptions, Miniflare, NoOpLog, type V4WorkerOptions } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_readConfig, unstable_splitSqlQuery } from "wrangler";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Bundle, plainWorker, root } from "../support/program/bundle.ts";

export type Served = {
  url: string;
  /** Lines that the Worker has written to its console. */
  lines(): number;
  /** Where its state is. */
  stateDir: string;
  /** What it warned of or failed at, the first hundred lines. */
  complaints(): string[];
  /** The proxy's database; for what would take too long to write through the front door. */
  database(): Promise<D1>;
  /** Processor time that the runtime has used, in milliseconds; null where the system does not tell. */
  cpuMs(): number | null;
  /** Memory that the runtime holds, in bytes; null where the system does not tell. */
  residentBytes(): number | null;
  /** Where a profiler connects, when served with `inspect`. */
  inspectorUrl(): Promise<URL>;
  stop(): Promise<void>;
};

type D1 = Awaited<ReturnType<Miniflare["getD1Database"]>>;
type WorkerShape = Omit<V4WorkerOptions, "modules" | "modulesRoot">;

// Says nothing of the files it looks for; those beside the project are not read.
process.env["WRANGLER_LOG"] ??= "error";

/**
 * The proxy, with the bindings of `wrangler.toml` and the migrations applied. Limits are off: one client stands for many.
 *
 * @param settings settings of the proxy, by name
 */
export async function serveProxy(
  bundle: Bundle,
  settings: Record<string, string> = {},
  how: { inspect?: boolean } = {},
): Promise<Served> {
  // Without its path, so that no `.dev.vars` beside it is read.
  const config = {
    ...unstable_readConfig({ config: join(root, "wrangler.toml") }),
    configPath: undefined,
    userConfigPath: undefined,
  };
  const { bindings, rootPath: _rootPath, ...shape } = unstable_getMiniflareWorkerOptions(config).workerOptions;
  const secrets = { OPERATOR_TOKEN, REGISTRY_SIGNING_SECRET: "signing-secret-of-the-bench-0123456789abcdef" };
  const limits = { RATE_LIMIT_PER_AGENT: "0", RATE_LIMIT_PER_IP: "off" };
  const worker = {
    ...shape,
    name: "sallyport",
    bindings: { ...(bindings as Record<string, string>), ...secrets, ...limits, ...settings },
  };
  migrated ??= migratedState(worker);
  return serve(bundle, worker, { state: await migrated, inspect: how.inspect === true });
}

/** Where the migrations are applied already: for each proxy a copy is made. */
let migrated: Promise<string> | null = null;

async function migratedState({ name, compatibilityDate, d1Databases }: WorkerShape): Promise<string> {
  const modules: Bundle["modules"] = [{ type: "ESModule", path: "/empty.js", contents: "export default {};" }];
  const shape = { name, compatibilityDate, d1Databases } as WorkerShape;
  const served = await serve({ modules, modulesRoot: "/" }, shape, {});
  await migrate(await served.database());
  const state = mkdtempSync(join(tmpdir(), "sallyport-bench-"));
  cpSync(join(served.stateDir, "state"), state, { recursive: true });
  process.once("exit", () => rmSync(state, { recursive: true, force: true }));
  await served.stop();
  return state;
}

/**
 * A Worker of the bench's own, beside which the proxy is measured.
 *
 * @param file its file in `worker/`; its objects are of the class `Box`
 */
export async function servePlain(file: "floor.ts" | "ceiling.ts"): Promise<Served> {
  const worker = {
    name: file.replace(".ts", ""),
    compatibilityDate: "2026-10-01",
    durableObjects: { BOX: { className: "Box", useSQLite: true } },
  };
  return serve(await plainWorker(file), worker, {});
}

/** @param how.state what it begins with */
async function serve(
  bundle: Bundle,
  worker: WorkerShape,
  { state, inspect = false }: { state?: string; inspect?: boolean },
): Promise<Served> {
  const stateDir = mkdtempSync(join(tmpdir(), "sallyport-bench-"));
  if (state !== undefined) cpSync(state, join(stateDir, "state"), { recursive: true });
  let lines = 0;
  const complaints: string[] = [];
  const { miniflare, url, runtime } = await startInTurn(
    convertV4MiniflareOptions({
      host: "127.0.0.1",
      port: 0,
      cf: false,
      log: new NoOpLog(),
      // Written by the Worker and carried out of the runtime, as in production, but not printed.
      handleStructuredLogs: ({ level, message }) => {
        lines += 1;
        if ((level === "error" || level === "warn") && complaints.length < 100) complaints.push(message);
      },
      resourcePersistencePath: join(stateDir, "state"),
      telemetry: { enabled: false },
      ...(inspect ? { inspectorPort: 0 } : {}),
      // A socket of the Worker's own: Miniflare's entry, which production has not, costs about as much as a whole hook.
      workers: [{ ...worker, ...bundle, unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }] }],
    }),
  );
  return {
    url: url.origin,
    stateDir,
    lines: () => lines,
    complaints: () => complaints,
    database: () => miniflare.getD1Database("DB"),
    cpuMs: () => (runtime === null ? null : cpuMsOf(runtime)),
    residentBytes: () => (runtime === null ? null : residentBytesOf(runtime)),
    inspectorUrl: () => miniflare.getInspectorURL(),
    async stop() {
      await miniflare.dispose();
      rmSync(stateDir, { recursive: true, force: true });
    },
  };
}

let lastStart: Promise<unknown> = Promise.resolve();

/** Starts a runtime once the one before is up: which process is whose is seen by which is new. */
async function startInTurn(options: ConstructorParameters<typeof Miniflare>[0]) {
  const start = lastStart.then(async () => {
    const before = runtimes();
    const miniflare = new Miniflare(options);
    await miniflare.ready;
    const url = await miniflare.unsafeGetDirectURL();
    return { miniflare, url, runtime: runtimes().find((pid) => !before.includes(pid)) ?? null };
  });
  // One that fails is told to whom it concerns, and holds up no other.
  lastStart = start.catch(() => null);
  return start;
}

async function migrate(db: D1): Promise<void> {
  const folder = join(root, "migrations");
  for (const name of readdirSync(folder)
    .filter((file) => file.endsWith(".sql"))
    .toSorted()) {
    const statements = unstable_splitSqlQuery(readFileSync(join(folder, name), "utf8"));
    // oxlint-disable-next-line no-await-in-loop -- migrations go in their order
    await db.batch(statements.map((statement) => db.prepare(statement)));
  }
}

const CLOCK_TICKS_A_SECOND = 100;

/** Runtimes that this process has started; none where the system keeps no such list. */
function runtimes(): string[] {
  if (!existsSync("/proc/self/task")) return [];
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").trim().split(" ");
  return children.filter((pid) => pid !== "" && readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "workerd");
}

/** By the scheduler's own account of each thread, in nanoseconds; in hundredths of a second where it keeps none. */
function cpuMsOf(pid: string): number {
  if (existsSync(`/proc/${pid}/schedstat`)) {
    const threads = readdirSync(`/proc/${pid}/task`);
    const spent = threads.map((thread) => Number(firstField(`/proc/${pid}/task/${thread}/schedstat`)));
    return spent.reduce((sum, nanoseconds) => sum + nanoseconds, 0) / 1_000_000;
  }
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // After the name, which stands in parentheses, utime and stime are the 12th and 13th.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / CLOCK_TICKS_A_SECOND;
}

/** Of a thread that has ended meanwhile there is none, and its time is as good as nothing. */
function firstField(path: string): string {
  return existsSync(path) ? (readFileSync(path, "utf8").split(" ")[0] ?? "0") : "0";
}

function residentBytesOf(pid: string): number | null {
  const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return kibibytes === undefined ? null : Number(kibibytes) * 1_024;
}
