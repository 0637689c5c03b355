/** Frames of the relay socket, contract §4: what they look like and how a text becomes one. Building: frame-encoder.ts. */
import * as z from "zod/mini";
import { type AgentDid, parseAgentDid } from "./did.ts";
import { rawMember, rawMembers } from "./json-text.ts";
import { err, ok, type Result } from "./result.ts";
import { cutToCodePoints, plainTextProblem } from "./text.ts";
import { isUlid, type Ulid } from "./ulid.ts";
import { parseUrl } from "./url.ts";

/** Largest frame from a client, in bytes of UTF-8. */
export const MAX_CLIENT_FRAME_BYTES = 1_048_576;
/** Largest frame from the server, in bytes: the largest accepted body and what stands around it. */
export const MAX_SERVER_FRAME_BYTES = MAX_CLIENT_FRAME_BYTES + 16_384;

const CONVERSATION_ID_MAX = 256;
const REPLY_TO_MAX_LENGTH = 2_048;
const REASON_MAX = 512;
const RPC_ID_MAX_LENGTH = 128;
const REPLACEMENT_CHARACTER = "\ufffd";
/** A recipient may put a message off for an hour at most. */
const RETRY_AFTER_MAX_MS = 3_600_000;
const ISO_8601 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})$/;

/** @returns whether the text may name a conversation or a group: 1 to 256 characters, all of them seen. Contract §1, Text. */
export function isConversationId(text: string): boolean {
  return plainTextProblem(text, 1, CONVERSATION_ID_MAX) === null;
}

const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/;

/**
 * @param allowsHttp whether this installation was itself called by http, as on a developer's machine
 * @returns whether the text may be a `replyTo`: an https URL without credentials, at most 2,048 characters; http towards
 *          loopback
 */
export function isReplyTo(text: string, allowsHttp = false): boolean {
  if (text.length > REPLY_TO_MAX_LENGTH || !/^https?:\/\/[\x21-\x7e]+$/.test(text)) return false;
  const url = parseUrl(text);
  if (url === null || url.username !== "" || url.password !== "") return false;
  return url.protocol === "https:" || allowsHttp || LOOPBACK_HOST.test(url.hostname);
}

const agentDid = z.custom<AgentDid>(
  (value) => typeof value === "string" && parseAgentDid(value) !== null,
  "is no agent DID",
);
const ulid = z.custom<Ulid>((value) => typeof value === "string" && isUlid(value), "is no ULID");
const conversationId = z.string().check(z.refine(isConversationId, "is not 1 to 256 characters that can be seen"));
const replyTo = z.string().check(z.refine(isReplyTo, "is no https URL"));
const timestamp = z
  .string()
  .check(z.refine((ts: string) => ISO_8601.test(ts) && !Number.isNaN(Date.parse(ts)), "is no ISO 8601 time"));
const deliveryId = z.string().check(z.regex(/^[A-Za-z0-9._~-]{1,512}$/));
const rpcId = z.union([z.string().check(z.minLength(1), z.maxLength(RPC_ID_MAX_LENGTH)), z.int()]);
const head = { v: z.literal(1), id: ulid, ts: timestamp };

const deliverAck = z.object({
  ...head,
  type: z.literal("deliver_ack"),
  ackId: ulid,
  accepted: z.boolean(),
  reason: z.optional(z.string()),
  retryAfterMs: z.optional(z.int().check(z.minimum(0), z.maximum(RETRY_AFTER_MAX_MS))),
});
const deliverWorking = z.object({ ...head, type: z.literal("deliver_working"), ackId: ulid });
const enqueue = z
  .object({
    ...head,
    type: z.literal("enqueue"),
    /** Absent for all of the group. */
    toAgentDid: z.optional(agentDid),
    conversationId: z.optional(conversationId),
    groupId: z.optional(conversationId),
    replyTo: z.optional(replyTo),
  })
  .check(
    z.refine(({ toAgentDid, groupId }) => toAgentDid !== undefined || groupId !== undefined, {
      path: ["toAgentDid"],
      message: "or groupId is required",
    }),
  );
const heartbeat = z.object({ ...head, type: z.literal("heartbeat") });
const heartbeatAck = z.object({ ...head, type: z.literal("heartbeat_ack"), ackId: ulid });
const req = z.object({
  type: z.literal("req"),
  id: rpcId,
  method: z.string().check(z.minLength(1), z.maxLength(RPC_ID_MAX_LENGTH)),
  params: z.optional(z.unknown()),
});

const deliver = z.object({
  ...head,
  type: z.literal("deliver"),
  deliveryId,
  fromAgentDid: z.nullable(agentDid),
  fromSubject: z.optional(z.string()),
  fromName: z.optional(z.string()),
  toAgentDid: agentDid,
  payload: z.unknown(),
  contentType: z.optional(z.string()),
  conversationId: z.optional(z.string()),
  groupId: z.optional(z.string()),
  replyTo: z.optional(z.string()),
  traceparent: z.optional(z.string()),
});
const enqueueAck = z.object({
  ...head,
  type: z.literal("enqueue_ack"),
  ackId: ulid,
  accepted: z.boolean(),
  reason: z.optional(z.string()),
  deliveryId: z.optional(deliveryId),
});
const receipt = z.object({
  ...head,
  type: z.literal("receipt"),
  originalFrameId: z.nullable(z.string()),
  deliveryId,
  toAgentDid: agentDid,
  status: z.enum(["delivered", "handled", "failed", "dead_lettered"]),
  reason: z.optional(z.string()),
});
const res = z.object({
  type: z.literal("res"),
  id: z.nullable(rpcId),
  ok: z.boolean(),
  payload: z.optional(z.unknown()),
  error: z.optional(
    z.object({
      code: z.string(),
      message: z.string(),
      details: z.optional(z.unknown()),
      retryable: z.optional(z.boolean()),
      retryAfterMs: z.optional(z.number()),
    }),
  ),
});
const event = z.object({ type: z.literal("event"), event: z.string(), payload: z.unknown(), seq: z.int() });

const clientSchemas = {
  deliver_ack: deliverAck,
  deliver_working: deliverWorking,
  enqueue,
  heartbeat,
  heartbeat_ack: heartbeatAck,
  req,
};
const serverSchemas = { deliver, enqueue_ack: enqueueAck, receipt, heartbeat, heartbeat_ack: heartbeatAck, res, event };

/** `retryAfterMs` beside `accepted: false` means "not now": tried again after that time. */
export type DeliverAckFrame = z.infer<typeof deliverAck>;
/** The client is at work on a message. */
export type DeliverWorkingFrame = z.infer<typeof deliverWorking>;
/** `payloadText` is the member's own JSON text, as it stood in the frame. */
export type EnqueueFrame = z.infer<typeof enqueue> & { readonly payloadText: string };
export type HeartbeatFrame = z.infer<typeof heartbeat>;
export type HeartbeatAckFrame = z.infer<typeof heartbeatAck>;
/** `idText` is the id's own JSON text, which the answer repeats, `paramsText` that of the parameters where there are any. */
export type ReqFrame = Omit<z.infer<typeof req>, "params"> & {
  readonly idText: string;
  readonly paramsText: string | undefined;
};
/** What a client may send. */
export type ClientFrame =
  | DeliverAckFrame
  | DeliverWorkingFrame
  | EnqueueFrame
  | HeartbeatFrame
  | HeartbeatAckFrame
  | ReqFrame;

/** `payloadText` is the sender's own JSON text, `payload` the value it stands for. */
export type DeliverFrame = z.infer<typeof deliver> & { readonly payloadText: string };
export type EnqueueAckFrame = z.infer<typeof enqueueAck>;
export type ReceiptFrame = z.infer<typeof receipt>;
export type ResFrame = z.infer<typeof res>;
export type EventFrame = z.infer<typeof event>;
/** What the server sends. */
export type ServerFrame =
  | DeliverFrame
  | EnqueueAckFrame
  | ReceiptFrame
  | HeartbeatFrame
  | HeartbeatAckFrame
  | ResFrame
  | EventFrame;

/** Why a text is no frame. `detail` names the member, never its value; `frameId` is the id as far as one was found. */
export type FrameProblem = {
  readonly reason: "too_large" | "not_json" | "unknown_type" | "malformed";
  readonly detail: string;
  readonly frameId: string | null;
};

/**
 * @param text a text message from a client
 * @returns the frame, or what is wrong with it. `too_large` closes the socket with 1009.
 */
export function parseClientFrame(text: string): Result<ClientFrame, FrameProblem> {
  // The platform has decoded the frame, and put this in the place of every byte that was no UTF-8 (RFC 6455 §8.1 would have it
  // close the connection). A sender that means the character itself spells it \ufffd, as the encoder here does.
  if (text.includes(REPLACEMENT_CHARACTER)) {
    return refuse("malformed", "is no UTF-8, or holds U+FFFD, which is spelled \\ufffd", null);
  }
  return parseFrame(text, clientSchemas, "enqueue", MAX_CLIENT_FRAME_BYTES);
}

/**
 * @param text a text message from the server
 * @returns the frame, or what is wrong with it
 */
export function parseServerFrame(text: string): Result<ServerFrame, FrameProblem> {
  return parseFrame(text, serverSchemas, "deliver", MAX_SERVER_FRAME_BYTES);
}

function parseFrame<S extends Record<string, z.ZodMiniType>>(
  text: string,
  schemas: S,
  withPayload: keyof S,
  maxBytes: number,
): Result<never, FrameProblem> | { readonly ok: true; readonly value: never } {
  if (isLongerThan(text, maxBytes)) return refuse("too_large", `a frame has at most ${maxBytes} bytes`, null);
  const value = parseJson(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return refuse("not_json", "a frame is a JSON object", null);
  }
  const { type, id } = value as { type?: unknown; id?: unknown };
  const frameId = typeof id === "string" && id.length <= RPC_ID_MAX_LENGTH ? id : null;
  const schema = typeof type === "string" && Object.hasOwn(schemas, type) ? schemas[type] : undefined;
  if (schema === undefined) return refuse("unknown_type", "type: is none that this side takes", frameId);
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return refuse("malformed", `${issue?.path.map(String).join(".") ?? ""}: ${issue?.message ?? "malformed"}`, frameId);
  }
  const frame = parsed.data as Record<string, unknown>;
  if (typeof frame["reason"] === "string") frame["reason"] = cutToCodePoints(frame["reason"], REASON_MAX);
  if (type === "req") {
    const texts = rawMembers(text, ["id", "params"]);
    if (!texts.ok) return refuse("malformed", `${texts.error}: stands there twice`, frameId);
    frame["idText"] = texts.value.id;
    frame["paramsText"] = texts.value.params ?? undefined;
    delete frame["params"];
  }
  if (type === withPayload) {
    const payload = rawMember(text, "payload");
    if (!payload.ok) return refuse("malformed", "payload: stands there twice", frameId);
    if (payload.value === null) return refuse("malformed", "payload: is required", frameId);
    frame["payloadText"] = payload.value;
  }
  // Each schema above is the schema of its member of the union; `payloadText` has just been added where it belongs.
  return ok(frame as never);
}

function refuse(reason: FrameProblem["reason"], detail: string, frameId: string | null) {
  return err({ reason, detail, frameId });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** @returns whether a text has more than so many bytes of UTF-8; a short or a long one is not encoded to find out. */
export function isLongerThan(text: string, maxBytes: number): boolean {
  if (text.length > maxBytes) return true;
  if (text.length * 3 <= maxBytes) return false;
  return new TextEncoder().encode(text).length > maxBytes;
}
