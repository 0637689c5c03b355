/**
 * What a recipient's own program made of a message that it had acknowledged (contract §3).
 *
 * @example
 * ```ts
 * const report = { deliveryId: "01JDA000000000000000000004", senderAgentDid: peerDid, status: "handled" } as const;
 * const outcome = await agent.deliveryReceipts.report(report).catch((error: ProblemError) => error.code);
 * console.log(outcome); // PROXY_NOT_FOUND
 * ```
 */
import type { Send } from "./rpc.ts";

/** The first verdict on a message stands. */
export type HandlingReport = {
  readonly deliveryId: string;
  /** Who sent it. */
  readonly senderAgentDid: string;
  readonly status: "handled" | "failed";
  /** Read by the sender. */
  readonly reason?: string | undefined;
};

/** Receipts that a recipient gives. */
export type DeliveryReceipts = {
  /** Reports one message that was delivered to this agent; its sender's state of it becomes that. May be repeated. */
  report(report: HandlingReport): Promise<void>;
};

/** @param send how a request of the agent is authorized */
export function createDeliveryReceipts(send: Send, recipientAgentDid: string): DeliveryReceipts {
  return {
    async report({ deliveryId, senderAgentDid, status, reason }) {
      const wireStatus = status === "handled" ? "delivered_to_webhook" : "dead_lettered";
      const body = { requestId: deliveryId, senderAgentDid, recipientAgentDid, status: wireStatus, reason };
      await send({ method: "POST", path: "/v1/relay/delivery-receipts", body: JSON.stringify(body) });
    },
  };
}
