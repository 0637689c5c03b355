/** Rows of the audit: written in the batch of what they report, so that neither is there without the other. */
import type { Principal } from "../authority/principal.ts";
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

/** The part of a call that an audit row tells of; nobody calls where the proxy does something by itself. */
export type AuditedCall = {
  db: D1Database;
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
      return "operator";
    case "agent":
      return `agent:${principal.agentDid}`;
    case "shared":
      return `shared:${principal.agentDid}`;
    case "device":
      return `device:${principal.agentDid}/${principal.deviceId}`;
    case "apiKey":
      return `service_account:${principal.serviceAccountId}`;
  }
}

/** @returns the statement that appends one row to the audit. */
export function auditStatement(call: AuditedCall, event: AuditEvent): D1PreparedStatement {
  return appendStatement(call, event, "");
}

/** The same for an effect that may be none: the row is there only if the statement right before it in the batch changed one. */
export function auditOfEffectStatement(call: AuditedCall, event: AuditEvent): D1PreparedStatement {
  return appendStatement(call, event, "WHERE changes() > 0");
}

function appendStatement(call: AuditedCall, event: AuditEvent, condition: string): D1PreparedStatement {
  const nowMs = call.now();
  return call.db
    .prepare(
      `INSERT INTO audit (id, at_ms, actor, action, subject, agent_did, origin, result, request_id, details)
       SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 ${condition}`,
    )
    .bind(
      newUlid(nowMs),
      nowMs,
      call.principal === null ? "sallyport" : subjectOf(call.principal),
      event.action,
      event.subject,
      event.agentDid,
      call.origin,
      event.result,
      call.requestId,
      JSON.stringify(event.details ?? {}),
    );
}
