/** Keys of operators. Times are milliseconds since 1970; the key is stored as its SHA-256 in base64url alone. */
import { sql } from "drizzle-orm";
import type { OperatorRole } from "../../wire/operator-role.ts";
import { check, index, integer, sqliteTable, text, uniqueIndex } from "drizzle-orm/sqlite-core";

export const operators = sqliteTable(
  "operators",
  {
    operatorId: text("operator_id").primaryKey(),
    keySha256: text("key_sha256").notNull().unique(),
    name: text("name").notNull(),
    role: text("role").$type<OperatorRole>().notNull(),
    /** Who made it, as the audit names them: it ends with them. */
    createdBy: text("created_by").notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    expiresAtMs: integer("expires_at_ms"),
    /** To the minute. */
    lastUsedAtMs: integer("last_used_at_ms"),
    revokedAtMs: integer("revoked_at_ms"),
  },
  (table) => [
    uniqueIndex("operators_by_name")
      .on(table.name)
      .where(sql`${table.revokedAtMs} IS NULL`),
    index("operators_by_maker").on(table.createdBy),
    check("operators_role", sql`${table.role} IN ('owner', 'admin', 'registrar', 'viewer', 'metrics')`),
  ],
);
