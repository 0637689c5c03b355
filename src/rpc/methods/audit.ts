/** `audit/list`: who did what to whom, newest first. Contract §5. */
import * as z from "zod/mini";
import type { AuditRow } from "../../audit/entry.ts";
import { auditPageStatement } from "../../audit/listing.ts";
import { readAll } from "../../database/read.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { pageLimit, timeMs } from "../schemas.ts";

const PAGE_MAX = 100;
const CURSOR_PATTERN = /^(\d{1,15})-([0-9A-HJKMNP-TV-Z]{26})$/;

const filter = z.optional(z.string().check(z.minLength(1), z.maxLength(600)));

const auditList = defineMethod({
  name: "audit/list",
  surface: "rpc",
  permission: PERMISSIONS["audit/list"],
  params: z.object({
    cursor: z.optional(z.string().check(z.regex(CURSOR_PATTERN))),
    subject: filter,
    action: filter,
    sinceMs: z.optional(timeMs),
    untilMs: z.optional(timeMs),
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
  async handler(ctx, { cursor, limit = PAGE_MAX, ...filters }) {
    const [, atMs, id] = CURSOR_PATTERN.exec(cursor ?? "") ?? [];
    const after = atMs === undefined || id === undefined ? null : { atMs: Number(atMs), id };
    const rows = await readAll(ctx.db, auditPageStatement(filters, after, limit + 1));
    const page = rows.slice(0, limit);
    const last = page.at(-1);
    return {
      entries: page.map(shown),
      ...(rows.length > limit && last !== undefined ? { nextCursor: `${last.atMs}-${last.id}` } : {}),
    };
  },
});

export const auditMethods: readonly Method[] = [auditList];

function shown({ operator, details, ...row }: AuditRow) {
  return {
    ...row,
    ...(operator === null ? {} : { operator }),
    details: JSON.parse(details) as Record<string, unknown>,
  };
}
