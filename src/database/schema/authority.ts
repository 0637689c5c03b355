/** Fencing tokens where effects are committed. `database/fencing.ts` alone reads and writes these two tables. */
import { sql } from "drizzle-orm";
import { check, integer, sqliteTable, text } from "drizzle-orm/sqlite-core";

/** The epoch of each authority that can be revoked; no row means 0. Triggers: an epoch only rises, and no row is deleted. */
export const authorityEpochs = sqliteTable(
  "authority_epochs",
  {
    authority: text("authority").primaryKey(),
    epoch: integer("epoch").notNull(),
  },
  (table) => [check("authority_epochs_epoch", sql`${table.epoch} >= 0`)],
);

/** Never holds a row: a batch under an authority inserts 0 here when its epoch has passed, and is thereby undone whole. */
export const fence = sqliteTable(
  "fence",
  {
    current: integer("current").$type<0 | 1>().notNull(),
  },
  (table) => [check("authority_is_current", sql`${table.current} = 1`)],
);
