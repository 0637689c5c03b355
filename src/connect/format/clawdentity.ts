/** The body that clawdentity's connector posts to its agent's webhook, for programs that were written for it. */
import { type Delivery, senderOf } from "../message.ts";
import type { Formatted } from "./format.ts";
import { JSON_HEADERS, jsonObject } from "./json-members.ts";

/** `clawdentity.delivery.v1`. A message of no agent comes from the recipient itself, and `deliverySource` says who it was. */
export function clawdentity(message: Delivery): Formatted {
  const { deliveryId, fromAgentDid, fromSubject, fromName, toAgentDid, conversationId, groupId, receivedAtMs } =
    message;
  const source = fromAgentDid === null ? senderOf(message) : fromSubject;
  const relayMetadata = {
    timestamp: new Date(receivedAtMs).toISOString(),
    ...(source === undefined ? {} : { deliverySource: source }),
    ...(message.contentType === undefined ? {} : { contentType: message.contentType }),
    ...(message.replyTo === undefined ? {} : { replyTo: message.replyTo }),
  };
  const members = {
    type: "clawdentity.delivery.v1",
    requestId: deliveryId,
    fromAgentDid: fromAgentDid ?? toAgentDid,
    toAgentDid,
    conversationId,
    groupId,
    senderAgentName: fromName,
    relayMetadata,
  };
  return { headers: JSON_HEADERS, body: jsonObject(members, { payload: message.payloadText }) };
}
