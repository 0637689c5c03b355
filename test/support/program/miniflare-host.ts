/**
 * The process that serves the program: the bundle as it would be deployed, in Miniflare, with its state on disk. A process
 * of its own, so that it and its workerd can be killed as one group.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { convertV4MiniflareOptions, Miniflare, NoOpLog } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_readConfig, unstable_splitSqlQuery } from "wrangler";
import { OPERATOR_TOKEN } from "./agents.ts";

/** What the driver hands over, as JSON in the one argument. */
export type HostPlan = {
  bundle: string;
  stateDir: string;
  port: number;
  settings: Record<string, string>;
  /** Whether every line of the log is handed on, not warnings and errors alone. */
  isVerbose: boolean;
};

/** What the driver may ask over the channel: one statement of SQL on D1, or a new workerd in the place of one that was killed. */
export type HostQuery = { kind: "query"; id: number; sql: string } | { kind: "revive" };
export type HostAnswer =
  | { kind: "ready" }
  | { kind: "line"; level: string; line: string }
  | { kind: "rows"; id: number; rows: Record<string, unknown>[]; error?: string };

const root = join(import.meta.dirname, "../../..");
const plan = JSON.parse(process.argv[2] ?? "{}") as HostPlan;
const say = (answer: HostAnswer): void => void process.send?.(answer);

// Without its path, so that no `.dev.vars` beside it is read.
const config = {
  ...unstable_readConfig({ config: join(root, "wrangler.toml") }),
  configPath: undefined,
  userConfigPath: undefined,
};
const { bindings, rootPath: _rootPath, ...shape } = unstable_getMiniflareWorkerOptions(config).workerOptions;
const secrets = { OPERATOR_TOKEN, REGISTRY_SIGNING_SECRET: "signing-secret-of-the-tests-0123456789abcdef" };

/** Where V8 can be asked about memory; a driver that wants to ask says so in the environment. */
const inspectorPort = process.env["SALLYPORT_INSPECTOR_PORT"];

const options = () =>
  convertV4MiniflareOptions({
    host: "127.0.0.1",
    port: plan.port,
    cf: false,
    log: new NoOpLog(),
    handleStructuredLogs: ({ level, message }) => {
      if (plan.isVerbose || level === "error" || level === "warn")
        say({ kind: "line", level, line: message.slice(0, 4_000) });
    },
    resourcePersistencePath: join(plan.stateDir, "state"),
    telemetry: { enabled: false },
    ...(inspectorPort === undefined ? {} : { inspectorPort: Number(inspectorPort) }),
    workers: [
      {
        ...shape,
        name: "sallyport",
        modules: [{ type: "ESModule", path: "worker.js", contents: readFileSync(plan.bundle, "utf8") }],
        bindings: { ...(bindings as Record<string, string>), ...secrets, ...plan.settings },
      },
    ],
  });

const miniflare = new Miniflare(options());

await miniflare.ready;
let db = await miniflare.getD1Database("DB");
const { results: tables } = await db.prepare("SELECT name FROM sqlite_master WHERE name = 'migrated_for_tests'").all();
if (tables.length === 0) await migrate();

process.on("message", (query: HostQuery) => {
  if (query.kind === "revive") {
    revive().then(
      () => say({ kind: "ready" }),
      (error: unknown) => {
        console.error(error);
        process.exit(1);
      },
    );
    return;
  }
  const { id, sql } = query;
  db.prepare(sql)
    .all()
    .then(
      ({ results }: { results: Record<string, unknown>[] }) => say({ kind: "rows", id, rows: results }),
      (error: unknown) => say({ kind: "rows", id, rows: [], error: String(error) }),
    );
});
// Nobody is left to serve.
process.on("disconnect", () => process.exit(0));
say({ kind: "ready" });

async function revive(): Promise<void> {
  await miniflare.setOptions(options());
  await miniflare.ready;
  db = await miniflare.getD1Database("DB");
}

async function migrate(): Promise<void> {
  const folder = join(root, "migrations");
  for (const name of readdirSync(folder)
    .filter((file) => file.endsWith(".sql"))
    .toSorted()) {
    const statements = unstable_splitSqlQuery(readFileSync(join(folder, name), "utf8"));
    // oxlint-disable-next-line no-await-in-loop -- migrations go in their order
    await db.batch(statements.map((statement) => db.prepare(statement)));
  }
  await db.prepare("CREATE TABLE migrated_for_tests (at INTEGER)").run();
}
