import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { diskOf } from "./disk.ts";

describe("what the databases hold", () => {
  let stateDir: string;
  beforeEach(() => {
    stateDir = mkdtempSync(join(tmpdir(), "sallyport-disk-"));
    mkdirSync(join(stateDir, "do/sallyport-Gate"), { recursive: true });
    mkdirSync(join(stateDir, "d1/database"), { recursive: true });
  });
  afterEach(() => rmSync(stateDir, { recursive: true }));

  const rows = (db: DatabaseSync): void =>
    db.exec(
      "CREATE TABLE t (x TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT hex(randomblob(200)) FROM n",
    );

  test("is less after rows are forgotten, though the file stays as large as it was", () => {
    const path = join(stateDir, "do/sallyport-Gate/one.sqlite");
    const db = new DatabaseSync(path);
    rows(db);
    const full = diskOf(stateDir).gates.get("one.sqlite") ?? 0;
    const fileBytes = statSync(path).size;
    db.exec("DELETE FROM t");
    const forgotten = diskOf(stateDir).gates.get("one.sqlite") ?? 0;
    db.close();

    expect(full).toBe(fileBytes);
    expect(statSync(path).size).toBe(fileBytes);
    expect(forgotten).toBeLessThan(full / 10);
  });

  test("is told apart for gates and the database", () => {
    const db = new DatabaseSync(join(stateDir, "d1/database/two.sqlite"));
    rows(db);
    db.close();
    expect(diskOf(stateDir)).toEqual({ gates: new Map(), database: expect.any(Number) as number });
    expect(diskOf(stateDir).database).toBeGreaterThan(200_000);
  });
});
