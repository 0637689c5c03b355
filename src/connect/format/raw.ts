/** The payload alone; what is known of it stands in headers. */
import { encodeHeaderText } from "../../wire/text.ts";
import type { Delivery } from "../message.ts";
import type { Formatted } from "./format.ts";

/** The body is the sender's text to the byte. Text of people's choosing is by RFC 8187 where it is not visible ASCII. */
export function raw(message: Delivery): Formatted {
  const { fromAgentDid, fromSubject, fromName, toAgentDid, conversationId, groupId, replyTo } = message;
  const told = {
    "Sallyport-From-Agent-Did": fromAgentDid,
    "Sallyport-From-Subject": fromSubject,
    "Sallyport-From-Name": fromName,
    "Sallyport-To-Agent-Did": toAgentDid,
    "Sallyport-Conversation-Id": conversationId,
    "Sallyport-Group-Id": groupId,
    "Sallyport-Reply-To": replyTo,
  };
  const headers = Object.entries(told)
    .filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== null)
    .map(([name, value]) => [name, encodeHeaderText(value)]);
  return { headers: { "Content-Type": "application/json", ...Object.fromEntries(headers) }, body: message.payloadText };
}
