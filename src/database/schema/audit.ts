/** Who did what to whom, when, and with which result. */
import { sql } from "drizzle-orm";
import { check, index, integer, primaryKey, sqliteTable, text } from "drizzle-orm/sqlite-core";

/** Triggers: rows are appended, never changed or replaced, and deleted by retention alone. `details` is flat JSON without secrets. */
export const audit = sqliteTable(
  "audit",
  {
    id: text("id").primaryKey(),
    atMs: integer("at_ms").notNull(),
    actor: text("actor").notNull(),
    action: text("action").notNull(),
    subject: text("subject"),
    agentDid: text("agent_did"),
    origin: text("origin"),
    result: text("result").notNull(),
    requestId: text("request_id"),
    details: text("details").notNull().default("{}"),
    /** The name of the operator who did it; NULL for everybody else. */
    operator: text("operator"),
  },
  (table) => [
    index("audit_by_time").on(table.atMs, table.id),
    index("audit_by_subject").on(table.subject, table.atMs, table.id),
    index("audit_by_subject_and_action").on(table.subject, table.action, table.atMs, table.id),
    index("audit_by_action").on(table.action, table.atMs, table.id),
    check("audit_details", sql`json_valid(${table.details})`),
  ],
);

/**
 * How many entries of an action an actor has written in an hour, and how many a trigger on `audit` has left out. An hour is
 * `at_ms / 3,600,000`. STRICT, WITHOUT ROWID.
 */
export const auditUsage = sqliteTable(
  "audit_usage",
  {
    actor: text("actor").notNull(),
    hour: integer("hour").notNull(),
    action: text("action").notNull(),
    entries: integer("entries").notNull(),
    leftOut: integer("left_out").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.actor, table.hour, table.action] }),
    index("audit_usage_by_hour").on(table.hour),
  ],
);

/** One row: how far retention has gone. Audit rows before it may be deleted, and no others. */
export const auditRetention = sqliteTable(
  "audit_retention",
  {
    id: integer("id").primaryKey(),
    deleteBeforeMs: integer("delete_before_ms").notNull(),
  },
  (table) => [check("audit_retention_id", sql`${table.id} = 1`)],
);
