/** Rows of the audit: written in the batch of what they report, so that neither is there without the other. */
import { getTableColumns, type SQL, sql } from "drizzle-orm";
import { operatorSubject } from "../authority/operator.ts";
import type { Principal } from "../authority/principal.ts";
import { audit } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { newUlid } from "../wire/ulid.ts";

/** What is reported; who, when, from where and in which request follows from the call. */
export type AuditEvent = {
  /** What was done, e.g. `identity.revoke`. */
  action: string;
  /** Whom it was done to, as `type:id`. */
  subject: string | null;
  /** The agent it concerns. */
  agentDid: string | null;
  result: string;
  /** Flat, without secrets. */
  details?: Record<string, string | number | boolean | null>;
};

/** The part of a call that an audit row reports; there is no principal where the proxy does something by itself. */
export type AuditedCall = {
  now: () => number;
  /** Where the call came from: an address, or null. */
  origin: string | null;
  principal: Principal | null;
  requestId: string | null;
};

/** @returns the principal as a subject `type:id`, as the audit and the graph name it. */
export function subjectOf(principal: Principal): string {
  switch (principal.kind) {
    case "operator":
      return operatorSubject(principal);
    case "agent":
      return `agent:${principal.agentDid}`;
    case "invite":
      return `invite:${principal.inviteId}`;
    case "shared":
      return `shared:${principal.agentDid}`;
    case "device":
      return `device:${principal.agentDid}/${principal.deviceId}`;
    case "apiKey":
      return `service_account:${principal.serviceAccountId}`;
  }
}

/** @returns the name of an operator, which stands beside the actor in the audit; null for everybody else */
export function operatorNameOf(principal: Principal | null): string | null {
  return principal?.kind === "operator" ? principal.name : null;
}

/** @returns the statement that appends one row to the audit. */
export function auditStatement(call: AuditedCall, event: AuditEvent): Statement<D1Result> {
  return query.insert(audit).values(entryOf(call, event));
}

/** The same for an effect that may be none: the row is there only if the statement right before it in the batch changed one. */
export function auditOfEffectStatement(call: AuditedCall, event: AuditEvent): Statement<D1Result> {
  return appendIf(entryOf(call, event), sql`changes() > 0`);
}

/** The opposite: the row is there only if the statement right before it in the batch changed nothing. */
export function auditOfNoEffectStatement(call: AuditedCall, event: AuditEvent): Statement<D1Result> {
  return appendIf(entryOf(call, event), sql`changes() = 0`);
}

/** @returns the statement that appends an entry where a condition holds */
export function appendIf(entry: AuditRow, condition: SQL): Statement<D1Result> {
  const columns = getTableColumns(audit);
  const values = (Object.keys(columns) as (keyof AuditRow)[]).map((key) => sql`${entry[key]}`);
  return query.insert(audit).select(sql`SELECT ${sql.join(values, sql`, `)} WHERE ${condition}`);
}

/** A row of the audit. */
export type AuditRow = typeof audit.$inferSelect;

/** @returns the row that reports an event of a call */
export function entryOf(call: AuditedCall, event: AuditEvent): AuditRow {
  const nowMs = call.now();
  return {
    id: newUlid(nowMs),
    atMs: nowMs,
    actor: call.principal === null ? "sallyport" : subjectOf(call.principal),
    operator: operatorNameOf(call.principal),
    action: event.action,
    subject: event.subject,
    agentDid: event.agentDid,
    origin: call.origin,
    result: event.result,
    requestId: call.requestId,
    details: JSON.stringify(event.details ?? {}),
  };
}
