import { describe, expect, test } from "vitest";
import { MESSAGE_TABLES } from "../../../src/gate/storage/tables.ts";
import { onStorage } from "../../support/gate.ts";

type Column = { name: string; type: string; notnull: number; pk: number };

describe("the tables of messages", () => {
  test.each(Object.entries(MESSAGE_TABLES))(
    "%s: the migrations make exactly the columns that its row type has, with the same types",
    async (name, columns) => {
      const made = await onStorage((sql) =>
        sql.exec<Column>(`SELECT name, type, "notnull", pk FROM pragma_table_info(?)`, name).toArray(),
      );
      const described = made.map((column) => [
        column.name,
        // A key of a table without rowid is never null.
        `${column.type.toLowerCase()}${column.notnull === 1 || column.pk === 1 ? "" : "?"}`,
      ]);
      expect(Object.fromEntries(described)).toEqual(columns);
    },
  );
});
