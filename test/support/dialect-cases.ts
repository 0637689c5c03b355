/** Messages of every kind, with every optional member and with none, as a gate pushes them. */
import type { Envelope } from "../../src/gate/protocol/transfer.ts";
import type { Push } from "../../src/gate/queue/queue.ts";
import type { AgentDid } from "../../src/wire/did.ts";

const SELF = "did:cdi:registry.sallyport.example:agent:01KBC0000000000000000000B0" as AgentDid;
const PEER = "did:cdi:registry.sallyport.example:agent:01KBC0000000000000000A11CE" as AgentDid;
const GROUP = "grp_01KBC00000000000000000000A";

type Case = { what: string; push: Push; shows: Record<string, unknown> };

const EVERY: Partial<Envelope> = {
  contentType: "application/json",
  conversationId: "talk",
  replyTo: "https://gate.example.com/v1/relay/delivery-receipts",
  traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01`,
  trustEpoch: 3,
  isAwaited: true,
};

const SENDERS: {
  what: string;
  from: Pick<Envelope, "fromAgentDid" | "fromSubject" | "fromName">;
  shows: Record<string, unknown>;
}[] = [
  // A device sends as its agent.
  { what: "an agent's", from: { fromAgentDid: PEER }, shows: { fromAgentDid: PEER } },
  { what: "a named agent's", from: { fromAgentDid: PEER, fromName: "alice" }, shows: { fromAgentDid: PEER } },
  {
    what: "a service account's",
    from: { fromAgentDid: null, fromSubject: "service_account:01K" },
    shows: { fromAgentDid: SELF, deliverySource: "service_account:01K" },
  },
  {
    what: "the operator's",
    from: { fromAgentDid: null, fromSubject: "operator:root" },
    shows: { fromAgentDid: SELF, deliverySource: "operator:root" },
  },
  { what: "the proxy's own", from: { fromAgentDid: null }, shows: { fromAgentDid: SELF, deliverySource: "sallyport" } },
];

/** @returns the recipient, and one push of each kind */
export function createDialectCases(): { self: AgentDid; messages: Case[] } {
  const push = (envelope: Envelope): Push => ({
    socketId: "socket",
    deliveryId: "01KBC00000000000000000000A",
    envelope,
    body: '{"hello":"world"}',
  });
  const messages = SENDERS.flatMap(({ what, from, shows }): Case[] => [
    { what: `${what}, with nothing beside it,`, push: push(from), shows },
    {
      what: `${what}, with all there is,`,
      push: push({ ...from, ...EVERY }),
      shows: { ...shows, conversationId: "talk" },
    },
    { what: `${what}, in a group,`, push: push({ ...from, groupId: GROUP }), shows: { ...shows, groupId: GROUP } },
    {
      what: `${what}, with a label of an earlier version for a group,`,
      push: push({ ...from, groupId: "team a" }),
      shows,
    },
  ]);
  return { self: SELF, messages };
}
