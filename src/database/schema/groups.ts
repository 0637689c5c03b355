/** Groups of agents, their members, and what of it the gates still have to be notified of. Times are milliseconds since 1970. */
import { sql } from "drizzle-orm";
import { check, index, integer, primaryKey, sqliteTable, text } from "drizzle-orm/sqlite-core";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";

const ROLES = ["member", "admin"] as const;

/** The epoch rises whenever somebody comes or goes. */
export const agentGroups = sqliteTable(
  "agent_groups",
  {
    groupId: text("group_id").$type<GroupId>().primaryKey(),
    name: text("name").notNull(),
    epoch: integer("epoch").notNull(),
    createdBy: text("created_by").$type<AgentDid>().notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    /** Set from a deletion on until the gates of all members hold its fence; then the row goes. */
    deletedAtMs: integer("deleted_at_ms"),
  },
  (table) => [check("agent_groups_epoch", sql`${table.epoch} > 0`)],
);

/** WITHOUT ROWID. */
export const groupMembers = sqliteTable(
  "group_members",
  {
    groupId: text("group_id").$type<GroupId>().notNull(),
    agentDid: text("agent_did").$type<AgentDid>().notNull(),
    role: text("role", { enum: ROLES }).notNull(),
    joinedAtMs: integer("joined_at_ms").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.groupId, table.agentDid] }),
    index("group_members_by_agent").on(table.agentDid, table.groupId),
    check("group_members_role", sql`${table.role} IN ('member', 'admin')`),
  ],
);

/** A join token: single use, stored as SHA-256 in base64url alone. `useId` names the one call that used it. WITHOUT ROWID. */
export const groupTokens = sqliteTable(
  "group_tokens",
  {
    tokenSha256: text("token_sha256").notNull().primaryKey(),
    groupId: text("group_id").$type<GroupId>().notNull(),
    role: text("role", { enum: ROLES }).notNull(),
    /** The admin who made it; it ends with that admin's place in the group. */
    madeBy: text("made_by").$type<AgentDid>().notNull(),
    /** JSON: authorities, each `[name, epoch]`, with any of which it ends. */
    madeUnder: text("made_under").notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    expiresAtMs: integer("expires_at_ms").notNull(),
    useId: text("use_id").unique(),
    usedBy: text("used_by").$type<AgentDid>(),
  },
  (table) => [
    index("group_tokens_by_group").on(table.groupId, table.expiresAtMs),
    index("group_tokens_by_expiry").on(table.expiresAtMs),
    check("group_tokens_role", sql`${table.role} IN ('member', 'admin')`),
    check("group_tokens_made_under", sql`json_valid(${table.madeUnder})`),
  ],
);

/** A fence that gates are not known to have on disk. `subject`: a member's DID, empty for the group, `+` for one who came. WITHOUT ROWID. */
export const groupFences = sqliteTable(
  "group_fences",
  {
    groupId: text("group_id").$type<GroupId>().notNull(),
    subject: text("subject").$type<AgentDid | "" | "+">().notNull(),
    epoch: integer("epoch").notNull(),
    dueAtMs: integer("due_at_ms").notNull(),
    attempts: integer("attempts").notNull().default(0),
  },
  (table) => [primaryKey({ columns: [table.groupId, table.subject] }), index("group_fences_due").on(table.dueAtMs)],
);
