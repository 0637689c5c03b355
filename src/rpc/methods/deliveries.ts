/** What a sender may ask about its messages, and a recipient about its dead letters. Contract §3. */
import * as z from "zod/mini";
import type { CallContext } from "../../call/context.ts";
import { DELIVERY_STATES, type FetchedMessage, type GateLocal } from "../../call/gate.ts";
import { callRemoteGate } from "../../call/remote-gate.ts";
import { JsonText } from "../../wire/json-text.ts";
import { ProxyError } from "../../wire/problem.ts";
import { cutToCodePoints } from "../../wire/text.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { agentDid, queryNumber, queryPageLimit, timeMs } from "../schemas.ts";

const PAGE_MAX = 100;
/** Of a reason that a sender reads, in code points (contract §4). */
const REASON_MAX = 512;

const id = z.string().check(z.regex(/^[A-Za-z0-9._~-]{1,512}$/));

/** `GET /v1/deliveries/:deliveryId`. */
const deliveryGet = defineMethod({
  name: "delivery.get",
  surface: "http",
  permission: PERMISSIONS["delivery.get"],
  params: z.object({ deliveryId: id }),
  result: z.object({
    deliveryId: z.string(),
    state: z.enum(DELIVERY_STATES),
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

const INBOX_MAX = 100;
const WAIT_SECONDS_MAX = 25;
const RETRY_AFTER_MAX_MS = 3_600_000;

/** `GET /v1/inbox`: for programs without a socket. The route waits; a call itself finds what there is. */
const inboxFetch = defineMethod({
  name: "inbox.fetch",
  surface: "http",
  permission: PERMISSIONS["inbox.fetch"],
  params: z.object({
    limit: queryPageLimit(INBOX_MAX),
    waitSeconds: queryNumber(0, WAIT_SECONDS_MAX),
  }),
  result: z.object({ messages: z.array(z.custom<FetchedMessage>((value) => typeof value === "object")) }),
  handler: async (ctx, { limit = INBOX_MAX }) => ({ messages: requireGate(ctx).inbox.fetch(limit) }),
});

/** `POST /v1/inbox/ack`. */
const inboxAck = defineMethod({
  name: "inbox.ack",
  surface: "http",
  permission: PERMISSIONS["inbox.ack"],
  params: z.object({
    acks: z
      .array(
        z.object({
          deliveryId: id,
          accepted: z.boolean(),
          reason: z.optional(z.string()),
          retryAfterMs: z.optional(z.int().check(z.minimum(0), z.maximum(RETRY_AFTER_MAX_MS))),
        }),
      )
      .check(z.maxLength(INBOX_MAX)),
  }),
  result: z.object({ acknowledged: z.int() }),
  handler: async (ctx, { acks }) => ({
    acknowledged: requireGate(ctx).inbox.acknowledge(
      acks.map(({ reason, ...ack }) => ({ ...ack, reason: reasonOf(reason) ?? undefined })),
    ),
  }),
});

/** What goes over the wire for what a program made of a message: existing clients say it so. */
const HANDLINGS = { delivered_to_webhook: "handled", dead_lettered: "failed" } as const;
type WireHandling = keyof typeof HANDLINGS;
const wireHandling = z.enum(Object.keys(HANDLINGS) as [WireHandling, ...WireHandling[]]);

/** `POST /v1/relay/delivery-receipts`: the recipient's word on a message that was delivered to it. */
const receiptReport = defineMethod({
  name: "receipt.report",
  surface: "http",
  permission: PERMISSIONS["receipt.report"],
  params: z.object({
    requestId: id,
    senderAgentDid: agentDid,
    recipientAgentDid: agentDid,
    status: wireHandling,
    reason: z.optional(z.string()),
  }),
  result: z.object({ accepted: z.literal(true) }),
  handler: async (ctx, { requestId, senderAgentDid, recipientAgentDid, status, reason }) => {
    const gate = requireGate(ctx);
    // One answer for a message of another's, one that was never sent, and one that has not been delivered.
    if (recipientAgentDid !== ctx.agentDid || gate.isWaiting(requestId)) throw new ProxyError("PROXY_NOT_FOUND");
    const handling = { outcome: HANDLINGS[status], reason: reasonOf(reason) };
    const isKnown = await callRemoteGate(ctx, () =>
      ctx.gates.of(senderAgentDid).recordHandling(requestId, recipientAgentDid, handling),
    );
    if (!isKnown) throw new ProxyError("PROXY_NOT_FOUND");
    return { accepted: true as const };
  },
});

function reasonOf(reason: string | undefined): string | null {
  return reason === undefined || reason === "" ? null : cutToCodePoints(reason, REASON_MAX);
}

/** `GET /v1/relay/delivery-receipts`: what a recipient reported, for the sender. */
const receiptGet = defineMethod({
  name: "receipt.get",
  surface: "http",
  permission: PERMISSIONS["receipt.get"],
  params: z.object({ requestId: id, recipientAgentDid: agentDid }),
  result: z.union([
    z.object({
      found: z.literal(true),
      receipt: z.object({
        requestId: z.string(),
        senderAgentDid: z.string(),
        recipientAgentDid: z.string(),
        status: wireHandling,
        reason: z.optional(z.string()),
      }),
    }),
    z.object({ found: z.literal(false) }),
  ]),
  handler: async (ctx, { requestId, recipientAgentDid }) => {
    const handling = requireGate(ctx).handlingOf(requestId, recipientAgentDid);
    if (handling === null) return { found: false as const };
    const status: WireHandling = handling.outcome === "handled" ? "delivered_to_webhook" : "dead_lettered";
    const receipt = { requestId, senderAgentDid: ctx.agentDid ?? "", recipientAgentDid, status };
    return {
      found: true as const,
      receipt: handling.reason === null ? receipt : { ...receipt, reason: handling.reason },
    };
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
    const gate = requireGate(ctx);
    const letters = gate.deadLetters;
    // Others' messages are read only where that stands in the audit; an agent's are its own.
    if (ctx.principal.kind === "operator") {
      const [action, subject] = ["dead-letter.list", `agent:${ctx.agentDid}`];
      gate.audit({ action, subject, agentDid: ctx.agentDid, result: "permitted" });
    }
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
  inboxFetch,
  inboxAck,
  receiptReport,
  receiptGet,
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
