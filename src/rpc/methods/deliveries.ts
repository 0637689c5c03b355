/** What a sender may ask about its messages, and a recipient about its dead letters. Contract §3. */
import * as z from "zod/mini";
import type { CallContext } from "../../call/context.ts";
import type { GateLocal } from "../../call/gate.ts";
import { JsonText } from "../../wire/json-text.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { queryPageLimit, timeMs } from "../schemas.ts";

const PAGE_MAX = 100;

const id = z.string().check(z.regex(/^[A-Za-z0-9._~-]{1,512}$/));

/** `GET /v1/deliveries/:deliveryId`. */
const deliveryGet = defineMethod({
  name: "delivery.get",
  surface: "http",
  permission: PERMISSIONS["delivery.get"],
  params: z.object({ deliveryId: id }),
  result: z.object({
    deliveryId: z.string(),
    state: z.enum(["queued", "delivered", "dead_lettered"]),
    reason: z.optional(z.string()),
    attempts: z.nullable(z.int()),
    updatedAtMs: timeMs,
  }),
  handler: async (ctx, { deliveryId }) => {
    const status = await requireGate(ctx).deliveryStatus(deliveryId);
    if (status === null) throw new ProxyError("PROXY_NOT_FOUND");
    return status;
  },
});

/** `GET /v1/dead-letters`. */
const deadLetterList = defineMethod({
  name: "dead-letter.list",
  surface: "http",
  permission: PERMISSIONS["dead-letter.list"],
  params: z.object({ cursor: z.optional(id), limit: queryPageLimit(PAGE_MAX) }),
  result: z.object({
    deadLetters: z.array(
      z.object({
        id: z.string(),
        deliveryId: z.string(),
        fromAgentDid: z.nullable(z.string()),
        reason: z.string(),
        attempts: z.int(),
        bytes: z.int(),
        createdAtMs: timeMs,
        deadAtMs: timeMs,
        payload: z.custom<JsonText>((value) => value instanceof JsonText),
      }),
    ),
    nextCursor: z.optional(z.string()),
  }),
  handler: async (ctx, { cursor, limit = PAGE_MAX }) => {
    const letters = requireGate(ctx).deadLetters;
    const deadLetters = letters.list(cursor ?? null, limit);
    // A page may end before its limit, where its payloads are large.
    const last = deadLetters.at(-1);
    const isLast = last === undefined || letters.list(last.id, 1).length === 0;
    return { deadLetters, ...(isLast ? {} : { nextCursor: last.id }) };
  },
});

/** `POST /v1/dead-letters/:id/replay`. */
const deadLetterReplay = defineMethod({
  name: "dead-letter.replay",
  surface: "http",
  permission: PERMISSIONS["dead-letter.replay"],
  params: z.object({ id }),
  result: z.object({ id: z.string(), replayed: z.literal(true) }),
  handler: async (ctx, params) => {
    const gate = requireGate(ctx);
    if (!gate.deadLetters.replay(params.id)) throw new ProxyError("PROXY_NOT_FOUND");
    record(ctx, gate, "dead-letter.replay", params.id);
    return { id: params.id, replayed: true as const };
  },
});

/** `DELETE /v1/dead-letters/:id`. */
const deadLetterPurge = defineMethod({
  name: "dead-letter.purge",
  surface: "http",
  permission: PERMISSIONS["dead-letter.purge"],
  params: z.object({ id }),
  result: z.object({ id: z.string(), purged: z.literal(true) }),
  handler: async (ctx, params) => {
    const gate = requireGate(ctx);
    if (!gate.deadLetters.purge(params.id)) throw new ProxyError("PROXY_NOT_FOUND");
    record(ctx, gate, "dead-letter.purge", params.id);
    return { id: params.id, purged: true as const };
  },
});

/** `POST /v1/relay/tickets`. */
const relayTicket = defineMethod({
  name: "relay.ticket",
  surface: "http",
  permission: PERMISSIONS["relay.ticket"],
  params: z.object({}),
  result: z.object({ ticket: z.string(), expiresAtMs: timeMs }),
  handler: (ctx) => requireGate(ctx).issueRelayTicket(),
});

export const deliveryMethods: readonly Method[] = [
  deliveryGet,
  deadLetterList,
  deadLetterReplay,
  deadLetterPurge,
  relayTicket,
];

/** In the turn of what it reports, and so in its commit. */
function record(ctx: CallContext, gate: GateLocal, action: string, deliveryId: string): void {
  gate.audit({ action, subject: `delivery:${deliveryId}`, agentDid: ctx.agentDid, result: "ok" });
}

function requireGate(ctx: CallContext): GateLocal {
  if (ctx.gate === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: name the agent." });
  return ctx.gate;
}
