/** The connector's own form, and its default. */
import type { Delivery } from "../message.ts";
import type { Formatted } from "./format.ts";
import { JSON_HEADERS, jsonObject } from "./json-members.ts";

/** JSON: what the relay says of the message by the relay's names, and its payload as the sender wrote it. */
export function sallyport(message: Delivery): Formatted {
  const { payloadText, receivedAtMs, ...rest } = message;
  return {
    headers: JSON_HEADERS,
    body: jsonObject({ ...rest, receivedAt: new Date(receivedAtMs).toISOString() }, { payload: payloadText }),
  };
}
