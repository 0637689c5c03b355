/** The relationship graph, what a remote graph has pending, and for which tenants the graph decides. */
import { sql } from "drizzle-orm";
import {
  type AnySQLiteColumn,
  check,
  index,
  integer,
  primaryKey,
  sqliteTable,
  text,
  uniqueIndex,
} from "drizzle-orm/sqlite-core";

/** A tuple, column by column. */
const tupleColumns = () => ({
  objectType: text("object_type").notNull(),
  objectId: text("object_id").notNull(),
  relation: text("relation").notNull(),
  subjectType: text("subject_type").notNull(),
  subjectId: text("subject_id").notNull(),
  /** Empty unless the subject is a userset. */
  subjectRelation: text("subject_relation").notNull().default(""),
});

/** The tuple itself is the key. */
function tupleKey(table: Record<keyof ReturnType<typeof tupleColumns>, AnySQLiteColumn>) {
  const { objectType, objectId, relation, subjectType, subjectId, subjectRelation } = table;
  return primaryKey({ columns: [objectType, objectId, relation, subjectType, subjectId, subjectRelation] });
}

/**
 * `object_type:object_id#relation@subject_type:subject_id[#subject_relation]`. The key is the tuple itself, so the table is its
 * own index from an object to its subjects. STRICT, WITHOUT ROWID.
 */
export const relationships = sqliteTable(
  "relationships",
  {
    ...tupleColumns(),
    createdAtMs: integer("created_at_ms").notNull(),
  },
  (table) => [
    tupleKey(table),
    index("relationships_by_subject").on(
      table.subjectType,
      table.subjectId,
      table.subjectRelation,
      table.objectType,
      table.relation,
      table.objectId,
    ),
    index("relationships_usersets")
      .on(table.objectType, table.objectId, table.relation)
      .where(sql`${table.subjectRelation} <> ''`),
    uniqueIndex("relationships_one_tenant")
      .on(table.objectType, table.objectId)
      .where(sql`${table.relation} = 'tenant'`),
  ],
);

/** When a grant ends by itself. */
export const relationshipExpiries = sqliteTable(
  "relationship_expiries",
  {
    ...tupleColumns(),
    expiresAtMs: integer("expires_at_ms").notNull(),
  },
  (table) => [tupleKey(table), index("relationship_expiries_by_time").on(table.expiresAtMs)],
);

/** What is pending for a remote graph, oldest first for each object. A row goes when the graph has taken it. */
export const authzOutbox = sqliteTable(
  "authz_outbox",
  {
    id: text("id").primaryKey(),
    op: text("op", { enum: ["register", "deregister"] }).notNull(),
    /** `type:id` */
    object: text("object").notNull(),
    /** NULL: no principal's, or for a deregister every principal's. */
    principal: text("principal"),
    parent: text("parent"),
    /** NULL for an owner. */
    relation: text("relation"),
    createdAtMs: integer("created_at_ms").notNull(),
    attempts: integer("attempts").notNull().default(0),
    dueAtMs: integer("due_at_ms").notNull(),
    /** Its sender holds it until then. */
    leaseUntilMs: integer("lease_until_ms").notNull().default(0),
    leaseId: text("lease_id"),
    lastError: text("last_error"),
    /** When the remote graph refused it permanently. */
    parkedAtMs: integer("parked_at_ms"),
    /** Whose turn it waits for. */
    tenantId: text("tenant_id").notNull().default(""),
    /** Rises with every change. */
    version: integer("version").notNull().default(0),
    /** When the remote graph took a removal, which is read back for a while. */
    acceptedAtMs: integer("accepted_at_ms"),
  },
  (table) => [
    index("authz_outbox_by_turn").on(table.op, table.tenantId, table.dueAtMs),
    index("authz_outbox_by_subject").on(table.object, table.principal, table.relation),
    index("authz_outbox_registers")
      .on(table.object)
      .where(sql`${table.op} = 'register' AND ${table.parkedAtMs} IS NULL`),
    index("authz_outbox_by_object").on(table.object, table.id),
    index("authz_outbox_by_due").on(table.dueAtMs),
    index("authz_outbox_parked")
      .on(table.parkedAtMs)
      .where(sql`${table.parkedAtMs} IS NOT NULL`),
    check("authz_outbox_op", sql`${table.op} IN ('register', 'deregister')`),
  ],
);

/** One row: the last version of a change for a remote graph, and the tenant whose turn was last. */
export const authzOutboxState = sqliteTable(
  "authz_outbox_state",
  {
    id: integer("id").primaryKey(),
    version: integer("version").notNull(),
    turn: text("turn").notNull().default(""),
  },
  (table) => [check("authz_outbox_state_id", sql`${table.id} = 1`)],
);

/** A tenant without a row is as FGAC_ENFORCE says. */
export const tenantEnforcement = sqliteTable(
  "tenant_enforcement",
  {
    tenantId: text("tenant_id").primaryKey(),
    enforce: integer("enforce").$type<0 | 1>().notNull(),
    changedAtMs: integer("changed_at_ms").notNull(),
  },
  (table) => [
    index("tenant_enforcement_off")
      .on(table.tenantId)
      .where(sql`${table.enforce} = 0`),
    check("tenant_enforcement_enforce", sql`${table.enforce} IN (0, 1)`),
  ],
);

/**
 * Grants that an operator took by hand, and those of an API key that its maker did not hold: nothing gives them back by itself.
 * STRICT, WITHOUT ROWID.
 */
export const withdrawnGrants = sqliteTable(
  "withdrawn_grants",
  {
    ...tupleColumns(),
    withdrawnAtMs: integer("withdrawn_at_ms").notNull(),
  },
  (table) => [tupleKey(table), index("withdrawn_grants_by_subject").on(table.subjectType, table.subjectId)],
);

/**
 * What an earlier version kept instead: agents and service accounts that an operator took any grant from. Read, not written.
 * STRICT, WITHOUT ROWID.
 */
export const grantsTaken = sqliteTable(
  "grants_taken",
  {
    subjectType: text("subject_type", { enum: ["agent", "service_account"] }).notNull(),
    subjectId: text("subject_id").notNull(),
    takenAtMs: integer("taken_at_ms").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.subjectType, table.subjectId] }),
    check("grants_taken_subject_type", sql`${table.subjectType} IN ('agent', 'service_account')`),
  ],
);

/** Never holds a row: sharing a task inserts 0 here when it is shared with as many subjects as it may be, and is thereby undone. */
export const shareGuard = sqliteTable(
  "share_guard",
  {
    hasRoom: integer("has_room").$type<0 | 1>().notNull(),
  },
  (table) => [check("task_has_room_for_a_share", sql`${table.hasRoom} = 1`)],
);
