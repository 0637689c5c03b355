/** How much of what outlasts a call an agent and a tenant have. Triggers on `tasks`, `api_keys` and `audit` keep it. */
import { sql } from "drizzle-orm";
import { check, integer, sqliteTable, text } from "drizzle-orm/sqlite-core";

/** `agent:<did>` counts rows, `tenant:<id>` bytes; there from the first thing on that is made under a quota. STRICT, WITHOUT ROWID. */
export const quotaUsage = sqliteTable("quota_usage", {
  holder: text("holder").primaryKey(),
  tasks: integer("tasks").notNull().default(0),
  apiKeys: integer("api_keys").notNull().default(0),
  bytes: integer("bytes").notNull().default(0),
});

/** Never holds a row: a batch inserts 0 here when what it makes does not fit into a quota, and is thereby undone whole. */
export const quotaGuard = sqliteTable(
  "quota_guard",
  {
    hasRoom: integer("has_room").$type<0 | 1>().notNull(),
  },
  (table) => [check("quota_has_room", sql`${table.hasRoom} = 1`)],
);
