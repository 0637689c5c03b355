/** The connector's own database: one file, SQLite with a write-ahead log, each commit on the disk before it returns. */
import { createRequire } from "node:module";
import type { DatabaseSync } from "node:sqlite";

export type { DatabaseSync } from "node:sqlite";

/** @throws Error where this Node has no SQLite */
export function openDatabase(path: string): DatabaseSync {
  const database = new (sqlite().DatabaseSync)(path, { timeout: 5_000 });
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304");
  return database;
}

/** Loaded only where it is needed: Node 20 has none, and needs none for everything else. */
function sqlite(): typeof import("node:sqlite") {
  try {
    return createRequire(import.meta.url)("node:sqlite") as typeof import("node:sqlite");
  } catch (error) {
    throw new Error("--inbox and --outbox need Node 22.13 or newer, which brings SQLite along", { cause: error });
  }
}

/** One transaction: everything of it, or nothing. */
export function transaction<T>(database: DatabaseSync, work: () => T): T {
  database.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    database.exec("COMMIT");
    return result;
  } catch (error) {
    database.exec("ROLLBACK");
    throw error;
  }
}
