/**
 * The built bundle in the workerd of the lock file, with its state on a disk. Served on a socket of the Worker's own, past the
 * entry that Miniflare puts in front of it, which takes as much time again.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { convertV4MiniflareOptions, Miniflare, NoOpLog, type V4WorkerOptions } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_readConfig, unstable_splitSqlQuery } from "wrangler";

const root = join(import.meta.dirname, "../..");
const keeper = readFileSync(join(import.meta.dirname, "keeper.worker.js"), "utf8");
/** As in `wrangler.toml`, whose crons nothing fires here. */
const CRON = { cron: "*/5 * * * *", everyMs: 300_000 } as const;
/** Where the keeper is asked; the name leads there inside the runtime alone. */
const KEEPER = "keeper.invalid";

/** What is served, and how. */
export type HostOptions = {
  /** The bundle's text. */
  readonly bundle: () => string;
  readonly stateDir: string;
  readonly address: string;
  readonly port: number;
  /** Settings and secrets by name, over those of `wrangler.toml`. */
  readonly settings: Readonly<Record<string, string>>;
  /** A line of the Worker's log. */
  readonly onLine: (level: string, line: string) => void;
  /** Where V8 can be asked about memory; nowhere by default. */
  readonly inspectorPort?: number;
};

/** One statement, and what stands for its question marks. */
export type Statement = { readonly sql: string; readonly values?: readonly string[] };
type Row = Record<string, unknown>;

/** A program that serves. */
export type Host = {
  /** Statements on the database in one transaction. @returns the rows of each. @throws Error in the database's words */
  query(statements: readonly Statement[]): Promise<Row[][]>;
  /** What the clock fires every five minutes. @returns its outcome, as the runtime says it */
  fireCron(): Promise<unknown>;
  /** A new workerd in the place of one that is gone. */
  revive(): Promise<void>;
  stop(): Promise<void>;
};

/** @returns the settings that stand in `wrangler.toml` */
export function projectSettings(): Record<string, unknown> {
  return unstable_readConfig({ config: join(root, "wrangler.toml") }, { hideWarnings: true }).vars;
}

/**
 * Starts it, with its database brought up to the newest migration.
 *
 * @returns once it answers
 */
export async function openHost(options: HostOptions): Promise<Host> {
  // Without its path, so that no `.dev.vars` beside it is read.
  const config = {
    ...unstable_readConfig({ config: join(root, "wrangler.toml") }),
    configPath: undefined,
    userConfigPath: undefined,
  };
  const secret = randomBytes(32).toString("hex");
  const { bindings, rootPath: _rootPath, ...shape } = unstable_getMiniflareWorkerOptions(config).workerOptions;
  const keeping: V4WorkerOptions = {
    d1Databases: shape.d1Databases as NonNullable<V4WorkerOptions["d1Databases"]>,
    name: "keeper",
    routes: [`${KEEPER}/*`],
    modules: [{ type: "ESModule", path: "keeper.js", contents: keeper }],
    compatibilityFlags: ["service_binding_extra_handlers"],
    serviceBindings: { SALLYPORT: "sallyport" },
    bindings: { SECRET: secret },
  };
  const runtime = (isServing: boolean) =>
    convertV4MiniflareOptions({
      host: "127.0.0.1",
      port: 0,
      cf: false,
      log: new NoOpLog(),
      handleStructuredLogs: ({ level, message }) => options.onLine(level, message),
      resourcePersistencePath: join(options.stateDir, "state"),
      telemetry: { enabled: false },
      ...(options.inspectorPort === undefined ? {} : { inspectorPort: options.inspectorPort }),
      workers: [
        {
          ...shape,
          name: "sallyport",
          modules: [{ type: "ESModule", path: "worker.js", contents: options.bundle() }],
          bindings: { ...(bindings as Record<string, string>), ...options.settings },
          unsafeDirectSockets: isServing ? [{ host: options.address, port: options.port }] : [],
        },
        keeping,
      ],
    });
  const schema = schemaRecord(options.stateDir);
  const miniflare = new Miniflare(runtime(schema.isCurrent));
  await miniflare.ready;
  /**
   * Miniflare's own ways to a database and to a Worker stop this thread until they are answered. It is the thread that reads the
   * Worker's log: a log that nobody reads stops the Worker, and both would wait for each other for ever.
   */
  const ask = async (question: unknown): Promise<unknown> => {
    const body = JSON.stringify(question);
    const asked = { method: "POST", headers: { Authorization: secret }, body };
    const answer = await miniflare.dispatchFetch(`http://${KEEPER}/`, asked);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  };
  const query: Host["query"] = async (statements) => (await ask({ statements })) as Row[][];
  try {
    await migrate(query);
  } catch (error) {
    await miniflare.dispose();
    throw error;
  }
  schema.write();
  if (!schema.isCurrent) await miniflare.setOptions(runtime(true));
  const fireCron = (): Promise<unknown> => ask({ cron: CRON.cron });
  const timer = setInterval(
    () =>
      void fireCron().catch((error: unknown) =>
        options.onLine("error", JSON.stringify({ level: "error", event: "cron.failed", error: String(error) })),
      ),
    CRON.everyMs,
  );
  return {
    query,
    fireCron,
    async revive() {
      await miniflare.setOptions(runtime(true));
      await miniflare.ready;
    },
    async stop() {
      clearInterval(timer);
      await miniflare.dispose();
    },
  };
}

const migrations = (): string[] =>
  readdirSync(join(root, "migrations"))
    .filter((name) => name.endsWith(".sql"))
    .toSorted();

/**
 * Which schema a state has, as the last start left it: a newer version serves nobody before the state is migrated. A state that is
 * made only now has nobody to serve.
 */
function schemaRecord(stateDir: string): { isCurrent: boolean; write(): void } {
  const file = join(stateDir, "schema");
  const newest = migrations().at(-1) ?? "";
  const isNew = !existsSync(join(stateDir, "state"));
  return {
    isCurrent: isNew || (existsSync(file) && readFileSync(file, "utf8") === newest),
    write: () => writeFileSync(file, newest),
  };
}

/** Each migration with the record of it in one transaction, in the table that wrangler keeps. */
async function migrate(query: Host["query"]): Promise<void> {
  const [, applied = []] = await query([
    {
      sql: "CREATE TABLE IF NOT EXISTS d1_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)",
    },
    { sql: "SELECT name FROM d1_migrations" },
  ]);
  const names = new Set(applied.map(({ name }) => name));
  for (const name of migrations()) {
    if (names.has(name)) continue;
    const statements = unstable_splitSqlQuery(readFileSync(join(root, "migrations", name), "utf8"));
    // oxlint-disable-next-line no-await-in-loop -- migrations go in their order
    await query([
      ...statements.map((sql) => ({ sql })),
      { sql: "INSERT INTO d1_migrations (name) VALUES (?)", values: [name] },
    ]);
  }
}
