/** Builds the text of relay frames, contract §4. */
import type { AgentDid } from "./did.ts";
import { writeJson } from "./json-text.ts";
import { newUlid, type Ulid } from "./ulid.ts";

/** What every delivery frame begins with. */
export type FrameHead = { readonly id: Ulid; readonly ts: string };

/** @returns a fresh head: a new ULID and the time as ISO 8601. */
export function frameHead(nowMs: number): FrameHead {
  return { id: newUlid(nowMs), ts: new Date(nowMs).toISOString() };
}

/** A message on its way to its recipient; `payloadText` is JSON text and goes into the frame as it is. */
export type DeliverContent = {
  readonly deliveryId: string;
  /** Null for an API key, the operator, or the proxy itself. */
  readonly fromAgentDid: AgentDid | null;
  readonly fromSubject?: string | undefined;
  /** The sending agent's name, as its registry has it. */
  readonly fromName?: string | undefined;
  readonly toAgentDid: AgentDid;
  readonly payloadText: string;
  readonly contentType?: string | undefined;
  readonly conversationId?: string | undefined;
  readonly groupId?: string | undefined;
  readonly replyTo?: string | undefined;
  /** Trace context of the sender's request (W3C Trace Context §3.2). */
  readonly traceparent?: string | undefined;
};

/** @returns the text of a `deliver` frame. `payloadText` must be JSON; it is not looked at. */
export function deliverFrame(head: FrameHead, content: DeliverContent): string {
  const { payloadText, ...members } = content;
  return withPayload({ v: 1, type: "deliver", ...head, ...members }, payloadText);
}

/** What a client hands in over its socket. */
export type EnqueueContent = {
  /** Absent for all of the group. */
  readonly toAgentDid?: string | undefined;
  readonly payloadText: string;
  readonly conversationId?: string | undefined;
  readonly groupId?: string | undefined;
  readonly replyTo?: string | undefined;
};

/** @returns the text of an `enqueue` frame. `payloadText` must be JSON; it is not looked at. */
export function enqueueFrame(head: FrameHead, content: EnqueueContent): string {
  const { payloadText, ...members } = content;
  return spelledOut(withPayload({ v: 1, type: "enqueue", ...head, ...members }, payloadText));
}

/** @returns the text of a `deliver_ack` frame; `ackId` is the id of the `deliver` frame. */
export function deliverAckFrame(
  head: FrameHead,
  ack: { ackId: string; accepted: boolean; reason?: string | undefined; retryAfterMs?: number | undefined },
): string {
  return spelledOut(JSON.stringify({ v: 1, type: "deliver_ack", ...head, ...ack }));
}

/** @returns the text of a `deliver_working` frame, by which a client says that it is at work on a message; `ackId` as above. */
export function deliverWorkingFrame(head: FrameHead, ackId: string): string {
  return JSON.stringify({ v: 1, type: "deliver_working", ...head, ackId });
}

/** @returns the text of an `enqueue_ack` frame; `ackId` is the id of the `enqueue` frame. */
export function enqueueAckFrame(
  head: FrameHead,
  ack: { ackId: string; accepted: boolean; reason?: string | undefined; deliveryId?: string | undefined },
): string {
  return JSON.stringify({ v: 1, type: "enqueue_ack", ...head, ...ack });
}

/** @returns the text of a `heartbeat` frame. */
export function heartbeatFrame(head: FrameHead): string {
  return JSON.stringify({ v: 1, type: "heartbeat", ...head });
}

/** @returns the text of a `heartbeat_ack` frame; `ackId` is the id of the `heartbeat` frame. */
export function heartbeatAckFrame(head: FrameHead, ackId: string): string {
  return JSON.stringify({ v: 1, type: "heartbeat_ack", ...head, ackId });
}

/** What became of a message, for its sender. */
export type ReceiptContent = {
  /** Id of the `enqueue` frame; null when the message came by HTTP. */
  readonly originalFrameId: string | null;
  readonly deliveryId: string;
  readonly toAgentDid: AgentDid;
  readonly status: "delivered" | "handled" | "failed" | "dead_lettered";
  readonly reason?: string | undefined;
};

/** @returns the text of a `receipt` frame. */
export function receiptFrame(head: FrameHead, content: ReceiptContent): string {
  return JSON.stringify({ v: 1, type: "receipt", ...head, ...content });
}

/** A message as clients of the base dialect read it: these members, and no others. */
export type BaseDeliverContent = {
  readonly fromAgentDid: AgentDid;
  readonly toAgentDid: AgentDid;
  readonly payloadText: string;
  readonly deliverySource?: string | undefined;
  readonly contentType?: string | undefined;
  readonly groupId?: string | undefined;
  readonly conversationId?: string | undefined;
  readonly replyTo?: string | undefined;
};

/** @returns the text of a `deliver` frame of the base dialect. `payloadText` must be JSON; it is not looked at. */
export function baseDeliverFrame(head: FrameHead, content: BaseDeliverContent): string {
  const { payloadText, ...members } = content;
  return withPayload({ v: 1, type: "deliver", ...head, ...members }, payloadText);
}

/** What became of a message, as clients of the base dialect read it. */
export type BaseReceiptContent = {
  readonly originalFrameId: Ulid;
  readonly toAgentDid: AgentDid;
  readonly status: "delivered_to_webhook" | "dead_lettered";
  readonly reason?: string | undefined;
};

/** @returns the text of a `receipt` frame of the base dialect. */
export function baseReceiptFrame(head: FrameHead, content: BaseReceiptContent): string {
  return JSON.stringify({ v: 1, type: "receipt", ...head, ...content });
}

/** @returns the text of a `req` frame; `JsonText` in its `params` keeps its own text. */
export function reqFrame(request: { id: string | number; method: string; params?: unknown }): string {
  return spelledOut(writeJson({ type: "req", ...request }));
}

/** The error of a `res` frame. */
export type ResError = {
  readonly code: string;
  readonly message: string;
  readonly details?: unknown;
  readonly retryable?: boolean | undefined;
  readonly retryAfterMs?: number | undefined;
};

/** The answer to a `req` frame; `idText` and `payloadText` are JSON text and go into the frame as they are. */
export type ResContent =
  | { readonly idText: string; readonly ok: true; readonly payloadText: string }
  | { readonly idText: string; readonly ok: false; readonly error: ResError };

/** @returns the text of a `res` frame. */
export function resFrame(content: ResContent): string {
  const outcome = content.ok ? `"payload":${content.payloadText}` : `"error":${JSON.stringify(content.error)}`;
  return `{"type":"res","id":${content.idText},"ok":${content.ok},${outcome}}`;
}

/** @returns the text of an `event` frame; `seq` counts the events of one socket from 1. */
export function eventFrame(content: { event: string; payload: unknown; seq: number }): string {
  return JSON.stringify({ type: "event", ...content });
}

/** A server takes U+FFFD as it stands for what is left of bytes that were no UTF-8; it only ever stands inside a string. */
function spelledOut(text: string): string {
  return text.includes("\ufffd") ? text.replaceAll("\ufffd", "\\ufffd") : text;
}

function withPayload(members: Readonly<Record<string, unknown>>, payloadText: string): string {
  return `${JSON.stringify(members).slice(0, -1)},"payload":${payloadText}}`;
}
