/** Single values of an object, in the key-value rows of its own database. */

/** One value that belongs to the gate as a whole. */
export function readNumber(sql: SqlStorage, name: string): number | null {
  const value = readMeta(sql, name);
  return typeof value === "number" ? value : null;
}

/** @returns a text that was stored under this name, or null */
export function readText(sql: SqlStorage, name: string): string | null {
  const value = readMeta(sql, name);
  return typeof value === "string" ? value : null;
}

function readMeta(sql: SqlStorage, name: string): SqlStorageValue {
  return (
    sql.exec<{ value: SqlStorageValue }>("SELECT value FROM meta WHERE name = ?", name).toArray()[0]?.value ?? null
  );
}

/** Stores a value under a name, in the place of the one before; null removes it. */
export function writeMeta(sql: SqlStorage, name: string, value: SqlStorageValue): void {
  sql.exec(
    "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    name,
    value,
  );
}
