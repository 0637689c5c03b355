/** CloudEvents 1.0 in the HTTP binary mode: the payload is the body, its context attributes are headers. */
import { type Delivery, senderOf } from "../message.ts";
import type { Formatted } from "./format.ts";

/** What is no printable ASCII, and the two characters that the binding escapes as well. */
const ESCAPED = /[^\x21-\x7e]|["%]/gu;

/** HTTP Protocol Binding for CloudEvents 1.0.2, §3.1.3.2: percent-encoded UTF-8. */
function attribute(value: string): string {
  return value.replaceAll(ESCAPED, (char) => [...new TextEncoder().encode(char)].map(percent).join(""));
}

function percent(byte: number): string {
  return `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
}

/** The source is who sent it; what CloudEvents has no name for are extension attributes. */
export function cloudEvents(message: Delivery): Formatted {
  const { deliveryId, toAgentDid, conversationId, groupId, receivedAtMs, payloadText, traceparent } = message;
  const attributes = {
    "ce-specversion": "1.0",
    "ce-type": "sallyport.message.v1",
    "ce-id": deliveryId,
    "ce-source": senderOf(message),
    "ce-subject": toAgentDid,
    "ce-time": new Date(receivedAtMs).toISOString(),
    "ce-conversationid": conversationId,
    "ce-groupid": groupId,
    "ce-traceparent": traceparent,
  };
  const headers = Object.entries(attributes)
    .filter((entry): entry is [string, string] => entry[1] !== undefined)
    .map(([name, value]) => [name, attribute(value)]);
  return { headers: { "Content-Type": "application/json", ...Object.fromEntries(headers) }, body: payloadText };
}
