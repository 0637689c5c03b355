/** What a task is at, and what may follow. What is final stays. */
import { type SQL, sql, type SQLWrapper } from "drizzle-orm";
import type { tasks } from "../database/schema.ts";

export const TASK_STATES = [
  "running",
  "input_required",
  "interrupted",
  "completed",
  "failed",
  "rejected",
  "canceled",
] as const;
export type TaskState = (typeof TASK_STATES)[number];

/** What a task's agent may say of it. */
export const REPORTED_STATES = ["running", "input_required", "completed", "failed", "rejected"] as const;
export type ReportedState = (typeof REPORTED_STATES)[number];

type Columns = Pick<typeof tasks.$inferSelect, "status" | "state">;

/** @returns what a row is at: an older version of the proxy writes `status` alone, and that it canceled a task counts */
export function stateOf({ status, state }: Columns): TaskState {
  if (status === "running") return state ?? "running";
  return state !== null && isFinal(state) ? state : "canceled";
}

/** The same, of a row of `tasks`, as SQL. */
export function stateIn(t: { status: SQLWrapper; state: SQLWrapper }): SQL {
  return sql`CASE WHEN ${t.status} = 'running' THEN COALESCE(${t.state}, 'running')
    WHEN ${t.state} IN ('completed', 'failed', 'rejected') THEN ${t.state} ELSE 'canceled' END`;
}

export function isFinal(state: TaskState): boolean {
  return state !== "running" && state !== "input_required" && state !== "interrupted";
}

/** @returns the columns of a row that is at `state` */
export function columnsOf(state: TaskState): Columns {
  if (state === "canceled") return { status: "canceled", state: null };
  return { status: isFinal(state) ? "canceled" : "running", state };
}
