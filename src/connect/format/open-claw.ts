/** OpenClaw's own hook, `POST /hooks/agent`: a text for its agent, in a session of its own for each conversation. */
import { type Delivery, senderOf } from "../message.ts";
import type { Formatted } from "./format.ts";
import { JSON_HEADERS } from "./json-members.ts";

/** What its hook takes. */
const BODY_MAX_BYTES = 256 * 1_024;

/** The text of a payload that has one, as `{"text": …}`, `{"message": …}` or a string; else the payload's JSON. */
export function openClaw(message: Delivery): Formatted | string {
  const { deliveryId, fromName, conversationId } = message;
  const sender = senderOf(message);
  const body = JSON.stringify({
    message: textOf(message.payloadText),
    name: fromName ?? sender,
    sessionKey: `sallyport:${conversationId ?? sender}`,
    idempotencyKey: deliveryId,
  });
  if (new TextEncoder().encode(body).length > BODY_MAX_BYTES)
    return "the message is longer than the recipient's program takes (256 KiB)";
  return { headers: JSON_HEADERS, body };
}

function textOf(payloadText: string): string {
  const payload = JSON.parse(payloadText) as unknown;
  if (typeof payload === "string") return payload;
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) return payloadText;
  const { text, message } = payload as { text?: unknown; message?: unknown };
  if (typeof text === "string") return text;
  return typeof message === "string" ? message : payloadText;
}
