/** Invites of the embedded registry. Times are milliseconds since 1970; the secret is stored as its SHA-256 in base64url alone. */
import { sql } from "drizzle-orm";
import { check, index, integer, primaryKey, sqliteTable, text } from "drizzle-orm/sqlite-core";
import type { AgentDid, HumanDid } from "../../wire/did.ts";

export const invites = sqliteTable(
  "invites",
  {
    inviteId: text("invite_id").primaryKey(),
    inviteSha256: text("invite_sha256").notNull().unique(),
    ownerDid: text("owner_did").$type<HumanDid>().notNull(),
    tenantId: text("tenant_id").notNull(),
    /** How many agents may come by it, and how many have. */
    uses: integer("uses").notNull(),
    used: integer("used").notNull(),
    note: text("note"),
    /** Who made it, as the audit names them. */
    createdBy: text("created_by").notNull(),
    createdAtMs: integer("created_at_ms").notNull(),
    expiresAtMs: integer("expires_at_ms").notNull(),
    revokedAtMs: integer("revoked_at_ms"),
  },
  (table) => [
    index("invites_by_expiry").on(table.expiresAtMs),
    index("invites_by_maker").on(table.createdBy),
    check("invites_used", sql`${table.used} >= 0 AND ${table.used} <= ${table.uses}`),
  ],
);

/** Which agents came by an invite. WITHOUT ROWID. */
export const inviteUses = sqliteTable(
  "invite_uses",
  {
    inviteId: text("invite_id").notNull(),
    agentDid: text("agent_did").$type<AgentDid>().notNull(),
    usedAtMs: integer("used_at_ms").notNull(),
  },
  (table) => [primaryKey({ columns: [table.inviteId, table.agentDid] })],
);

/** Never holds a row, see `database/guard.ts`. */
export const inviteGuard = sqliteTable(
  "invite_guard",
  {
    mayBeUsed: integer("may_be_used").$type<0 | 1>().notNull(),
  },
  (table) => [check("invite_may_be_used", sql`${table.mayBeUsed} = 1`)],
);
