/** Messages for tests of the connector. */
import type { Delivery } from "../../src/connect/message.ts";

export const ALICE = "did:cdi:registry.sallyport.example:agent:01KBC0000000000000000A11CE";
export const BOB = "did:cdi:registry.sallyport.example:agent:01KBC0000000000000000000B0";

let made = 0;

/** A message from Alice to Bob, unless told otherwise. */
export function delivery(over: Partial<Delivery> = {}): Delivery {
  made += 1;
  return {
    deliveryId: `01KBC${String(made).padStart(21, "0")}`,
    fromAgentDid: ALICE,
    toAgentDid: BOB,
    payloadText: '{"n": 1.0}',
    receivedAtMs: Date.UTC(2026, 11, 1, 10, 0, 0),
    ...over,
  };
}
