/** The methods of contract §5, Operators: keys of named persons and programs, each with a role. */
import * as z from "zod/mini";
import { OPERATOR_ROLES } from "../../wire/operator-role.ts";
import { createOperator } from "../../operators/create.ts";
import { revokeOperator } from "../../operators/revoke.ts";
import { listOperatorRows } from "../../operators/store.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { count, cursor, pageLimit, plainText, timeMs } from "../schemas.ts";

const PAGE_MAX = 100;
const operatorId = z.string().check(z.regex(/^[0-9A-HJKMNP-TV-Z]{26}$/));
const role = z.enum(OPERATOR_ROLES);

const listed = z.object({
  operatorId: z.string(),
  name: z.string(),
  role,
  /** `operator` for `OPERATOR_TOKEN`, else `operator:<id>`. */
  createdBy: z.string(),
  createdAtMs: timeMs,
  expiresAtMs: z.nullable(timeMs),
  lastUsedAtMs: z.nullable(timeMs),
  revokedAtMs: z.optional(timeMs),
});

const create = defineMethod({
  name: "operator/create",
  surface: "rpc",
  permission: PERMISSIONS["operator/create"],
  params: z.object({ name: plainText(1, 64), role, expiresAtMs: z.optional(z.nullable(timeMs)) }),
  result: z.object({ operatorId: z.string(), key: z.string() }),
  handler: (ctx, { expiresAtMs = null, ...wanted }) => createOperator(ctx, { ...wanted, expiresAtMs }),
});

const list = defineMethod({
  name: "operator/list",
  surface: "rpc",
  permission: PERMISSIONS["operator/list"],
  params: z.object({ cursor: cursor(64), limit: pageLimit(PAGE_MAX) }),
  result: z.object({ operators: z.array(listed), nextCursor: z.optional(z.string()) }),
  handler: async (ctx, { cursor: after = null, limit = PAGE_MAX }) => {
    const rows = await listOperatorRows(ctx.db, { cursor: after, limit });
    const shown = rows.slice(0, limit);
    const last = shown.at(-1);
    return {
      operators: shown.map(({ revokedAtMs, ...row }) => ({ ...row, ...(revokedAtMs === null ? {} : { revokedAtMs }) })),
      ...(rows.length > limit && last !== undefined ? { nextCursor: last.operatorId } : {}),
    };
  },
});

const revoke = defineMethod({
  name: "operator/revoke",
  surface: "rpc",
  permission: PERMISSIONS["operator/revoke"],
  params: z.object({ operatorId }),
  result: z.object({
    operatorId: z.string(),
    revokedAtMs: timeMs,
    ended: z.object({ operators: count, invites: count, apiKeys: count }),
  }),
  handler: (ctx, params) => revokeOperator(ctx, params.operatorId),
});

export const operatorMethods: readonly Method[] = [create, list, revoke];
