/**
 * What one gate says to clients of two kinds (contract §4): those that asked for `sallyport.v1` when they connected, and those of the
 * base dialect, whose strict codecs drop a frame with a member that they do not know. Decided a socket, when a frame is sent.
 */
import type { AgentDid } from "../../wire/did.ts";
import {
  baseDeliverFrame,
  baseReceiptFrame,
  deliverFrame,
  type FrameHead,
  frameHead,
  receiptFrame,
} from "../../wire/frame-encoder.ts";
import { parseGroupId } from "../../wire/group-id.ts";
import { isUlid } from "../../wire/ulid.ts";
import type { Receipt } from "../outbox/outbox.ts";
import type { Envelope } from "../protocol/transfer.ts";
import type { Push } from "../queue/queue.ts";

/** How a client wants to be spoken to. */
export type Dialect = "v1" | "base";

/** Who a message without a sending agent is from, as clients of the base dialect read it. */
const PROXY_SOURCE = "sallyport";
const PAIR_ACCEPTED_SOURCE = "proxy.events.queue.pair_accepted";

/** @returns the frame of a message; null where a client of this dialect has no form for it, and is to have none */
export function deliverText(self: AgentDid, push: Push, dialect: Dialect, nowMs: number): string | null {
  // The frame's id is the delivery's: an acknowledgement that arrives after the gate has slept finds its row by it.
  const head = { ...frameHead(nowMs), id: push.deliveryId as FrameHead["id"] };
  if (dialect === "base") return baseDeliverText(self, head, push);
  const { trustEpoch: _trustEpoch, groupEpoch: _groupEpoch, isAwaited: _isAwaited, ...members } = push.envelope;
  return deliverFrame(head, { deliveryId: push.deliveryId, toAgentDid: self, ...members, payloadText: push.body });
}

function baseDeliverText(self: AgentDid, head: FrameHead, { envelope, body }: Push): string | null {
  const notice = envelope.fromAgentDid === null && envelope.fromSubject === undefined ? pairNotice(body) : undefined;
  if (notice === null) return null;
  if (notice !== undefined) {
    const { fromAgentDid, payloadText } = notice;
    return baseDeliverFrame(head, {
      fromAgentDid,
      toAgentDid: self,
      deliverySource: PAIR_ACCEPTED_SOURCE,
      payloadText,
    });
  }
  const { fromAgentDid, fromSubject, contentType, conversationId, groupId, replyTo } = envelope;
  return baseDeliverFrame(head, {
    // Never null there: what no agent sent comes from the recipient itself, and the source says whose it is.
    fromAgentDid: fromAgentDid ?? self,
    toAgentDid: self,
    deliverySource: fromAgentDid === null ? sourceOf(fromSubject) : undefined,
    contentType,
    conversationId,
    groupId: parseGroupId(groupId ?? "") ?? undefined,
    replyTo,
    payloadText: body,
  });
}

function sourceOf(fromSubject: Envelope["fromSubject"]): string {
  return fromSubject ?? PROXY_SOURCE;
}

type ConfirmedPairing = {
  kind: string;
  initiatorAgentDid: AgentDid;
  responderAgentDid: AgentDid;
  responderProfile: { agentName: string; humanName: string; proxyOrigin?: string };
  issuerProxyOrigin?: string;
  confirmedAtMs: number;
};

/**
 * The notice of a confirmed pairing in the base form.
 *
 * @param body of a message of the proxy's own
 * @returns undefined for another message; null where the responder gave no origin, without which that form cannot be written
 */
function pairNotice(body: string): { fromAgentDid: AgentDid; payloadText: string } | null | undefined {
  const payload = JSON.parse(body) as Partial<ConfirmedPairing> | null;
  if (payload?.kind !== "pair.confirmed" || payload.responderProfile === undefined) return undefined;
  const { initiatorAgentDid, responderAgentDid, responderProfile, issuerProxyOrigin, confirmedAtMs } =
    payload as ConfirmedPairing;
  const { agentName, humanName, proxyOrigin } = responderProfile;
  if (proxyOrigin === undefined) return null;
  const notice = {
    type: "pair.accepted",
    initiatorAgentDid,
    responderAgentDid,
    responderProfile: { agentName, humanName, proxyOrigin },
    issuerProxyOrigin: issuerProxyOrigin ?? proxyOrigin,
    eventTimestampUtc: new Date(confirmedAtMs).toISOString(),
    message: `${agentName} (${humanName}) has confirmed the pairing.`,
  };
  return { fromAgentDid: responderAgentDid, payloadText: JSON.stringify(notice) };
}

/** @returns the frame of a receipt; null where a client of this dialect has no form for it */
export function receiptText(receipt: Receipt, dialect: Dialect, nowMs: number): string | null {
  const { originFrameId, deliveryId, toAgentDid, status, reason } = receipt;
  // The same id each time that it is sent, as a `deliver` frame's; a client may acknowledge it by that.
  const head = { ...frameHead(nowMs), id: deliveryId as FrameHead["id"] };
  // A message that came by HTTP has no frame of its own: the frame that delivered it has the delivery's id.
  const originalFrameId = originFrameId ?? deliveryId;
  const why = reason === null || reason === "" ? {} : { reason };
  if (dialect === "v1") return receiptFrame(head, { originalFrameId, deliveryId, toAgentDid, status, ...why });
  // Its client knows a delivery by the frame that it sent; of one that it handed in over HTTP it is told how it ended.
  if (!isUlid(originalFrameId) || (originFrameId === null && status === "delivered")) return null;
  const baseStatus = status === "dead_lettered" || status === "failed" ? "dead_lettered" : "delivered_to_webhook";
  return baseReceiptFrame(head, { originalFrameId, toAgentDid, status: baseStatus, ...why });
}
