/**
 * What each method does, in a line, and what it may refuse beside what every method may. `/openapi.json` takes the rest from
 * the method's own declaration. A method that has no line here does not compile.
 */
import type { MethodName } from "../../rpc/permissions.ts";
import type { ProblemCode } from "../../wire/problem.ts";

export type OperationDescription = {
  /** One sentence without a full stop, from the caller's side. */
  readonly summary: string;
  /** Codes beside those of every operation (`answers.ts`). */
  readonly refuses?: readonly ProblemCode[];
  /** Parameters of a call that could be made. Names of agents and people are those of {@link EXAMPLE}. */
  readonly example?: Readonly<Record<string, unknown>>;
};

/** Who the examples speak of. */
export const EXAMPLE = {
  agentDid: "did:cdi:agents.example.com:agent:01JDA000000000000000000001",
  peerAgentDid: "did:cdi:agents.example.com:agent:01JDA000000000000000000002",
  ownerDid: "did:cdi:agents.example.com:human:01JDA000000000000000000003",
  ulid: "01JDA000000000000000000004",
  groupId: "grp_01JDA000000000000000000005",
  deviceId: "abcdefghijklmnopqrstuv",
  /** 32 bytes in base64url. */
  publicKey: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
} as const;

const { agentDid, peerAgentDid, ownerDid, ulid, groupId, deviceId, publicKey } = EXAMPLE;
const profile = { agentName: "scheduler", humanName: "Alice" };
const tuple = { object: `agent:${agentDid}`, relation: "viewer", subject: `agent:${peerAgentDid}` };

const CONFLICT: readonly ProblemCode[] = ["PROXY_CONFLICT"];
const ENDS: readonly ProblemCode[] = ["DRAIN_TIMEOUT"];
const MAKES: readonly ProblemCode[] = ["PROXY_CONFLICT", "PROXY_QUOTA_EXCEEDED"];
const GRAPH: readonly ProblemCode[] = ["AUTHZ_UNAVAILABLE"];
const SENDS: readonly ProblemCode[] = ["PROXY_RELAY_QUEUE_FULL", "PROXY_CONFLICT", "PROXY_BODY_TOO_LARGE"];

export const OPERATIONS: Readonly<Record<MethodName, OperationDescription>> = {
  "identity.register": {
    summary: "Register an agent and issue its first credentials",
    refuses: MAKES,
    example: { name: "scheduler", framework: "openclaw", publicKey, ownerDid, ttlSeconds: 86_400 },
  },
  "identity.list": { summary: "List the agents of this installation", example: { limit: 20 } },
  "identity.revoke": {
    summary: "End an agent and everything that descends from it",
    refuses: [...ENDS, ...CONFLICT],
    example: { agentDid, reason: "laptop stolen" },
  },
  "identity.rekey": {
    summary: "Give an agent a new key under the same DID",
    refuses: [...ENDS, ...MAKES],
    example: { agentDid, publicKey },
  },
  "identity.reissue": { summary: "Issue a new identity token to the calling agent", refuses: CONFLICT },
  "identity.refresh": {
    summary: "Exchange a refresh token for a new access token",
    example: { refreshToken: "spr_example" },
  },
  "identity.enroll": {
    summary: "Register an agent of one's own by an invite",
    refuses: MAKES,
    example: { name: "scheduler", framework: "openclaw", publicKey },
  },
  "invite.create": {
    summary: "Make an invite by which somebody registers an agent",
    refuses: MAKES,
    example: { uses: 1, ttlSeconds: 604_800, note: "for Bob" },
  },
  "invite.list": { summary: "List invites with their uses, without the secrets", example: { limit: 20 } },
  "invite.revoke": { summary: "End an invite", example: { inviteId: ulid } },
  "identity.keys.rotate": { summary: "Begin to sign with a new key of the registry", refuses: CONFLICT },
  "identity.keys.revoke": {
    summary: "Revoke a signing key of the registry",
    refuses: CONFLICT,
    example: { kid: "key-1" },
  },

  "pair.start": {
    summary: "Make a pairing ticket for another agent",
    refuses: ["PROXY_PAIR_INVALID_BODY", "PROXY_QUOTA_EXCEEDED"],
    example: { initiatorProfile: profile, ttlSeconds: 300 },
  },
  "pair.confirm": {
    summary: "Pair with the agent that made a ticket",
    refuses: ["PROXY_PAIR_INVALID_BODY", "PROXY_PAIR_TICKET_INVALID", "PROXY_CONFLICT", "PROXY_GONE"],
    example: { ticket: "spt_example", responderProfile: profile },
  },
  "pair.status": {
    summary: "Ask what became of a pairing ticket",
    refuses: ["PROXY_PAIR_INVALID_BODY", "PROXY_PAIR_TICKET_INVALID", "PROXY_GONE"],
    example: { ticket: "spt_example" },
  },
  "pair.remove": {
    summary: "End the trust between the calling agent and a peer",
    refuses: ["PROXY_PAIR_INVALID_BODY", ...ENDS],
    example: { peerAgentDid },
  },
  "agent.profile": {
    summary: "Look up who a peer is, a fellow of a group, or oneself",
    example: { did: peerAgentDid },
  },
  "pair.peers": { summary: "List the agents that the calling agent is paired with" },
  "trust/list": { summary: "List all pairs of agents that trust one another", example: { limit: 20 } },
  "trust/remove": {
    summary: "End the trust of two agents",
    refuses: ENDS,
    example: { agentDid, peerAgentDid },
  },

  "group/create": {
    summary: "Make a group, of which the caller is an admin",
    refuses: MAKES,
    example: { name: "team" },
  },
  "group/invite": {
    summary: "Make a token by which one agent joins a group",
    refuses: MAKES,
    example: { groupId, role: "member", ttlSeconds: 86_400 },
  },
  "group/join": {
    summary: "Join a group by a token",
    refuses: [...MAKES, "PROXY_GONE"],
    example: { token: "spg_example" },
  },
  "group/list": { summary: "List the groups that the caller is in", example: {} },
  "group/get": { summary: "Read a group's members", example: { groupId } },
  "group/remove": {
    summary: "Remove a member from a group",
    refuses: [...ENDS, ...CONFLICT],
    example: { groupId, agentDid: peerAgentDid },
  },
  "group/leave": { summary: "Leave a group", refuses: [...ENDS, ...CONFLICT], example: { groupId } },
  "group/rename": { summary: "Give a group another name", refuses: CONFLICT, example: { groupId, name: "the team" } },
  "group/delete": { summary: "Delete a group", refuses: [...ENDS, ...CONFLICT], example: { groupId } },

  "delivery.get": {
    summary: "Ask where a message is",
    example: { deliveryId: ulid },
  },
  "inbox.fetch": { summary: "Fetch messages that wait, without a socket", example: { limit: 20, waitSeconds: 0 } },
  "inbox.ack": {
    summary: "Acknowledge messages that were fetched",
    example: { acks: [{ deliveryId: ulid, accepted: true }] },
  },
  "receipt.report": {
    summary: "Report what the recipient's own program made of a message that was delivered",
    example: {
      requestId: ulid,
      senderAgentDid: peerAgentDid,
      recipientAgentDid: agentDid,
      status: "delivered_to_webhook",
    },
  },
  "receipt.get": {
    summary: "Ask what a recipient's own program made of a message",
    example: { requestId: ulid, recipientAgentDid: peerAgentDid },
  },
  "dead-letter.list": { summary: "List messages that could not be delivered to an agent", example: { limit: 20 } },
  "dead-letter.replay": {
    summary: "Queue a dead letter again",
    refuses: ["PROXY_RELAY_QUEUE_FULL"],
    example: { id: ulid },
  },
  "dead-letter.purge": { summary: "Delete a dead letter", example: { id: ulid } },
  "relay.ticket": { summary: "Get a ticket that opens one relay socket" },

  "device.pair.request": {
    summary: "Ask that a device may act for the calling agent",
    refuses: MAKES,
    example: { publicKey, label: "phone", scopes: ["relay", "send"] },
  },
  "device.pair.list": { summary: "List pairing requests and devices of an agent", example: { agentDid } },
  "device.pair.approve": {
    summary: "Approve a device by the digest that it shows",
    refuses: MAKES,
    example: { agentDid, requestId: ulid, digest: publicKey },
  },
  "device.pair.reject": { summary: "Reject a device's request", example: { agentDid, requestId: ulid } },
  "device.pair.remove": {
    summary: "End a device and forget it",
    refuses: ENDS,
    example: { agentDid, deviceId },
  },
  "device.pair.rename": { summary: "Give a device another label", example: { agentDid, deviceId, label: "tablet" } },
  "device.scopes.request": {
    summary: "Ask for scopes beyond those that were approved",
    refuses: CONFLICT,
    example: { scopes: ["relay", "tasks:read"] },
  },
  "device.scopes.approve": {
    summary: "Approve a device's request for more scopes",
    refuses: CONFLICT,
    example: { agentDid, deviceId, digest: publicKey },
  },
  "device.token.rotate": {
    summary: "Replace a device's token and end the old one",
    refuses: [...ENDS, ...CONFLICT],
    example: { agentDid, deviceId },
  },
  "device.token.revoke": {
    summary: "End a device's token for good",
    refuses: [...ENDS, ...CONFLICT],
    example: { agentDid, deviceId },
  },
  "shared.auth.rotate": {
    summary: "Replace an agent's shared relay secret and end the old one",
    refuses: [...ENDS, ...CONFLICT],
    example: { agentDid },
  },

  "task/create": {
    summary: "Make a task for an agent",
    refuses: [...MAKES, ...GRAPH],
    example: { agentDid, name: "book-a-room", params: { people: 4 }, metadata: {} },
  },
  "task/get": { summary: "Read a task", refuses: GRAPH, example: { taskId: ulid } },
  "task/list": { summary: "List tasks that the caller may read", refuses: GRAPH, example: { limit: 20 } },
  "task/cancel": {
    summary: "Cancel a task",
    refuses: [...CONFLICT, ...GRAPH],
    example: { taskId: ulid },
  },
  "task/interrupt": {
    summary: "Interrupt a task, which a message continues",
    refuses: [...CONFLICT, ...GRAPH],
    example: { taskId: ulid },
  },
  "task/update": {
    summary: "Say, as the task's agent, what becomes of it",
    refuses: [...MAKES, ...GRAPH],
    example: { taskId: ulid, status: "completed", result: { room: "2.14" } },
  },
  "task/delete": {
    summary: "Delete a task",
    refuses: [...CONFLICT, ...GRAPH],
    example: { taskId: ulid },
  },
  "task/share": {
    summary: "Let somebody else read or change a task",
    refuses: [...MAKES, ...GRAPH],
    example: { taskId: ulid, subject: `agent:${peerAgentDid}`, relation: "viewer" },
  },
  "task/unshare": {
    summary: "Take a share back",
    refuses: [...CONFLICT, ...GRAPH],
    example: { taskId: ulid, subject: `agent:${peerAgentDid}`, relation: "viewer" },
  },
  "message/send": {
    summary: "Send a message to a task's agent",
    refuses: [...SENDS, ...GRAPH],
    example: { taskId: ulid, content: { text: "at noon, please" } },
  },
  "event/send": {
    summary: "Send an event to a task's agent",
    refuses: [...SENDS, ...GRAPH],
    example: { taskId: ulid, content: { kind: "room.freed" } },
  },

  "apikey/create": {
    summary: "Make an API key for a service account of an agent",
    refuses: [...MAKES, ...GRAPH],
    example: { agentDid, name: "nightly", scopes: ["tasks:read"] },
  },
  "apikey/list": { summary: "List API keys with their makers, without the secrets", example: { agentDid } },
  "apikey/delete": {
    summary: "End an API key and what was made by it",
    refuses: [...ENDS, ...GRAPH],
    example: { apiKeyId: ulid },
  },

  "authz/write": {
    summary: "Write and delete relationships, all or nothing",
    refuses: [...CONFLICT, ...GRAPH],
    example: { writes: [tuple] },
  },
  "authz/read": { summary: "Read relationships", example: { object: tuple.object } },
  "authz/check": {
    summary: "Ask whether a subject has a relation to an object",
    refuses: CONFLICT,
    example: tuple,
  },
  "authz/explain": {
    summary: "Ask why a subject has a relation to an object, or what is missing",
    refuses: CONFLICT,
    example: tuple,
  },
  "authz/list_objects": {
    summary: "List the objects that a subject has a relation to",
    refuses: CONFLICT,
    example: { subject: tuple.subject, relation: "viewer", type: "agent" },
  },
  "authz/reconcile": {
    summary: "Compare the relationships with what they are made of, and repair them",
    refuses: GRAPH,
    example: { dryRun: true },
  },
  "authz/enforce": {
    summary: "Let the relationship graph decide for a tenant, or not",
    refuses: CONFLICT,
    example: { tenantId: "acme", enforce: false },
  },

  "operator/create": {
    summary: "Make an operator's key with a role; it is shown once",
    refuses: CONFLICT,
    example: { name: "alice", role: "admin" },
  },
  "operator/list": { summary: "List operators with their roles, without their keys", example: { limit: 20 } },
  "operator/revoke": {
    summary: "End an operator's key and what was made with it",
    refuses: ENDS,
    example: { operatorId: ulid },
  },
  "audit/list": { summary: "Read the audit", example: { action: "agent.register" } },
};
