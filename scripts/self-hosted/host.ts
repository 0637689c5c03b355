/**
 * The built bundle in the workerd of the lock file, with its state on a disk. Served on a socket of the Worker's own, past the
 * entry that Miniflare puts in front of it, which takes as much time again.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { convertV4MiniflareOptions, Miniflare, NoOpLog } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_readConfig, unstable_splitSqlQuery } from "wrangler";

const root = join(import.meta.dirname, "../..");
/** As in `wrangler.toml`, whose crons nothing fires here. */
const CRON = { cron: "*/5 * * * *", everyMs: 300_000 } as const;

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

type Database = Awaited<ReturnType<Miniflare["getD1Database"]>>;

/** A program that serves. */
export type Host = {
  database(): Database;
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
  const { bindings, rootPath: _rootPath, ...shape } = unstable_getMiniflareWorkerOptions(config).workerOptions;
  const runtime = () =>
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
          unsafeDirectSockets: [{ host: options.address, port: options.port }],
        },
      ],
    });
  const miniflare = new Miniflare(runtime());
  await miniflare.ready;
  let database = await miniflare.getD1Database("DB");
  await migrate(database);
  const timer = setInterval(() => void fireCron(miniflare, options.onLine), CRON.everyMs);
  return {
    database: () => database,
    async revive() {
      await miniflare.setOptions(runtime());
      await miniflare.ready;
      database = await miniflare.getD1Database("DB");
    },
    async stop() {
      clearInterval(timer);
      await miniflare.dispose();
    },
  };
}

async function fireCron(miniflare: Miniflare, onLine: HostOptions["onLine"]): Promise<void> {
  try {
    // Declared as what is fetched alone; it also takes what comes by the clock.
    const worker = (await miniflare.getWorker()) as unknown as { scheduled(event: { cron: string }): Promise<unknown> };
    await worker.scheduled({ cron: CRON.cron });
  } catch (error) {
    onLine("error", JSON.stringify({ level: "error", event: "cron.failed", error: String(error) }));
  }
}

/** Each migration with the record of it in one transaction, in the table that wrangler keeps. */
async function migrate(database: Database): Promise<void> {
  await database
    .prepare(
      "CREATE TABLE IF NOT EXISTS d1_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)",
    )
    .run();
  const { results } = await database.prepare("SELECT name FROM d1_migrations").all();
  const applied = new Set((results as { name: string }[]).map(({ name }) => name));
  const folder = join(root, "migrations");
  for (const name of readdirSync(folder).toSorted()) {
    if (!name.endsWith(".sql") || applied.has(name)) continue;
    const statements = unstable_splitSqlQuery(readFileSync(join(folder, name), "utf8"));
    // oxlint-disable-next-line no-await-in-loop -- migrations go in their order
    await database.batch([
      ...statements.map((statement) => database.prepare(statement)),
      database.prepare("INSERT INTO d1_migrations (name) VALUES (?)").bind(name),
    ]);
  }
}
