/** Trust between agents: the one store of it. */
import { sql } from "drizzle-orm";
import { check, index, integer, primaryKey, sqliteTable, text } from "drizzle-orm/sqlite-core";
import type { AgentDid } from "../../wire/did.ts";

/** A pair is stored once, the smaller DID first; the epoch rises with every confirmation and every removal. WITHOUT ROWID. */
export const trustPairs = sqliteTable(
  "trust_pairs",
  {
    lowDid: text("low_did").$type<AgentDid>().notNull(),
    highDid: text("high_did").$type<AgentDid>().notNull(),
    epoch: integer("epoch").notNull(),
    lowProfile: text("low_profile").notNull(),
    highProfile: text("high_profile").notNull(),
    confirmedAtMs: integer("confirmed_at_ms").notNull(),
    /** NULL while the pair is trusted. */
    removedAtMs: integer("removed_at_ms"),
    /** 1 from a removal until both gates have its fence on disk. */
    fencesOwed: integer("fences_owed").$type<0 | 1>().notNull().default(0),
    /** When pending fences are placed next, and how often that has failed. */
    fencesDueAtMs: integer("fences_due_at_ms").notNull().default(0),
    fencesAttempts: integer("fences_attempts").notNull().default(0),
  },
  (table) => [
    primaryKey({ columns: [table.lowDid, table.highDid] }),
    index("trust_pairs_by_high").on(table.highDid, table.lowDid),
    index("trust_pairs_owing_fences")
      .on(table.removedAtMs)
      .where(sql`${table.fencesOwed} = 1`),
    index("trust_pairs_fences_due")
      .on(table.fencesDueAtMs)
      .where(sql`${table.fencesOwed} = 1`),
    check("trust_pairs_epoch", sql`${table.epoch} > 0`),
    check("trust_pairs_fences_owed", sql`${table.fencesOwed} IN (0, 1)`),
    check("trust_pairs_order", sql`${table.lowDid} < ${table.highDid}`),
  ],
);

/**
 * A pairing ticket: single use, stored as SHA-256 alone. `confirmId` names the one call that consumed it, so that the statements
 * after the consumption in the same batch know whether it was theirs. WITHOUT ROWID.
 */
export const pairTickets = sqliteTable(
  "pair_tickets",
  {
    ticketHash: text("ticket_hash").notNull().primaryKey(),
    initiatorDid: text("initiator_did").$type<AgentDid>().notNull(),
    initiatorProfile: text("initiator_profile").notNull(),
    allowedResponderDid: text("allowed_responder_did").$type<AgentDid>(),
    status: text("status", { enum: ["pending", "confirmed", "ended"] })
      .notNull()
      .default("pending"),
    createdAtMs: integer("created_at_ms").notNull(),
    expiresAtMs: integer("expires_at_ms").notNull(),
    confirmId: text("confirm_id").unique(),
    responderDid: text("responder_did").$type<AgentDid>(),
    responderProfile: text("responder_profile"),
    confirmedAtMs: integer("confirmed_at_ms"),
    /** When to notify the initiator that the ticket was confirmed; NULL once it was notified, or never had to be. */
    notifyAtMs: integer("notify_at_ms"),
    notifyAttempts: integer("notify_attempts").notNull().default(0),
  },
  (table) => [
    index("pair_tickets_by_initiator")
      .on(table.initiatorDid)
      .where(sql`${table.status} = 'pending'`),
    index("pair_tickets_owing_notification")
      .on(table.notifyAtMs)
      .where(sql`${table.notifyAtMs} IS NOT NULL`),
    index("pair_tickets_by_expiry").on(table.expiresAtMs),
    index("pair_tickets_of_initiator").on(table.initiatorDid, table.expiresAtMs),
    check("pair_tickets_status", sql`${table.status} IN ('pending', 'confirmed', 'ended')`),
    check(
      "pair_tickets_confirmed",
      sql`${table.status} <> 'confirmed' OR (${table.confirmId} IS NOT NULL AND ${table.responderDid} IS NOT NULL AND ${table.confirmedAtMs} IS NOT NULL)`,
    ),
  ],
);
