/** `audit/list`: who did what to whom, newest first. Contract §5. */
import * as z from "zod/mini";
import { read } from "../../database/read.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { pageLimit, timeMs } from "../schemas.ts";

const PAGE_MAX = 100;
const CURSOR_PATTERN = /^(\d{1,15})-([0-9A-HJKMNP-TV-Z]{26})$/;

const filter = z.optional(z.string().check(z.minLength(1), z.maxLength(600)));

type AuditRow = {
  id: string;
  at_ms: number;
  actor: string;
  action: string;
  subject: string | null;
  agent_did: string | null;
  origin: string | null;
  result: string;
  request_id: string | null;
  details: string;
  operator: string | null;
};

const auditList = defineMethod({
  name: "audit/list",
  surface: "rpc",
  permission: PERMISSIONS["audit/list"],
  params: z.object({
    cursor: z.optional(z.string().check(z.regex(CURSOR_PATTERN))),
    subject: filter,
    action: filter,
    limit: pageLimit(PAGE_MAX),
  }),
  result: z.object({
    entries: z.array(
      z.object({
        id: z.string(),
        atMs: timeMs,
        actor: z.string(),
        operator: z.optional(z.string()),
        action: z.string(),
        subject: z.nullable(z.string()),
        agentDid: z.nullable(z.string()),
        origin: z.nullable(z.string()),
        result: z.string(),
        requestId: z.nullable(z.string()),
        details: z.record(z.string(), z.unknown()),
      }),
    ),
    nextCursor: z.optional(z.string()),
  }),
  async handler(ctx, { cursor, subject, action, limit = PAGE_MAX }) {
    const [, atMs, id] = CURSOR_PATTERN.exec(cursor ?? "") ?? [];
    const rows = await read(
      ctx.db
        .prepare(
          `SELECT id, at_ms, actor, action, subject, agent_did, origin, result, request_id, details, operator FROM audit
           WHERE (?1 IS NULL OR subject = ?1) AND (?2 IS NULL OR action = ?2) AND (?3 IS NULL OR (at_ms, id) < (?3, ?4))
           ORDER BY at_ms DESC, id DESC LIMIT ?5`,
        )
        .bind(subject ?? null, action ?? null, atMs === undefined ? null : Number(atMs), id ?? null, limit + 1)
        .all<AuditRow>(),
    );
    const page = rows.results.slice(0, limit);
    const last = page.at(-1);
    return {
      entries: page.map((row) => ({
        id: row.id,
        atMs: row.at_ms,
        actor: row.actor,
        ...(row.operator === null ? {} : { operator: row.operator }),
        action: row.action,
        subject: row.subject,
        agentDid: row.agent_did,
        origin: row.origin,
        result: row.result,
        requestId: row.request_id,
        details: JSON.parse(row.details) as Record<string, unknown>,
      })),
      ...(rows.results.length > limit && last !== undefined ? { nextCursor: `${last.at_ms}-${last.id}` } : {}),
    };
  },
});

export const auditMethods: readonly Method[] = [auditList];
