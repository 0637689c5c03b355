/** A condition that undoes its batch when it does not hold at commit. */
import { type SQL, sql } from "drizzle-orm";
import { inviteGuard, quotaGuard, registryGuard, shareGuard } from "./schema.ts";
import { query, type Statement } from "./statement.ts";

/** The guard tables, which never hold a row, by the constraint that undoes the batch. */
const TABLES = {
  registry_is_as_read: registryGuard,
  task_has_room_for_a_share: shareGuard,
  quota_has_room: quotaGuard,
  invite_may_be_used: inviteGuard,
} as const;

/** What a guard is about. */
export type GuardName = keyof typeof TABLES;

const NAMES = Object.keys(TABLES) as GuardName[];

/**
 * A statement that undoes its batch unless the condition holds at commit; `commitFenced` then answers `{ guard: name }`.
 *
 * @param condition true when D1 is as it was read
 */
export function guard(condition: SQL, name: GuardName = "registry_is_as_read"): Statement<D1Result> {
  return query.insert(TABLES[name]).select(sql`SELECT 0 WHERE NOT (${condition})`);
}

/** @returns the guard by which D1 undid a batch, or null */
export function failedGuard(thrown: unknown): GuardName | null {
  if (!(thrown instanceof Error)) return null;
  const { message } = thrown;
  return NAMES.find((name) => message.includes(name)) ?? null;
}
