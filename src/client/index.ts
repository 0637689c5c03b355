/**
 * `sallyport/client`: what an agent, a relay client or an operator imports. Needs Web Crypto with Ed25519, `fetch` and
 * `WebSocket` from the platform and nothing else: Node ≥ 22, Workers, browsers; in Node 20 the
 * `WebSocket` is handed in, or comes with `sallyport/node` (docs/protocol.md §8 says how a page reaches a Sallyport of another
 * origin).
 *
 * @module
 */
export {
  type Accepted,
  type AcceptedByGroup,
  type AgentClient,
  type AgentHandlers,
  type AgentClientOptions,
  createAgentClient,
  type DeliveryStatus,
  type GroupMessage,
  type Message,
  type MessagesOptions,
  type OnReceived,
  type ReceivedInSequence,
  type ReceivedMessage,
  type ReplyLimit,
  type ReplyOptions,
  type Request,
} from "./agent.ts";
export {
  type AgentCredential,
  type AitLifetime,
  aitLifetime,
  type CredentialStore,
  type OnCredential,
} from "./transport/agent-credential.ts";
export type { AuditEntry, AuditPage, AuditQuery } from "./methods/audit.ts";
export type { ConnectionOptions, Fetch } from "./transport/http-call.ts";
export type { DeliveryReceipts, HandlingReport } from "./methods/delivery-receipts.ts";
export type { DeadLetter, DeadLetterPage, DeadLetters } from "./methods/dead-letters.ts";
export {
  type ApprovedDevice,
  type DeviceRequest,
  type Devices,
  type EndedDevice,
  type PairedDevice,
  pairingDigest,
  type PendingDevice,
  type RequestedDevice,
  type ScopeRequest,
  type RotatedDevice,
  type RotatedSecret,
  type Scope,
  SCOPES,
} from "./methods/devices.ts";
export type { Group, GroupInvite, GroupMember, GroupRole, Groups, ListedGroup } from "./methods/groups.ts";
export type { Task, TaskHandler, Tasks, TaskStatus, TaskWork, WaitOptions } from "./methods/tasks.ts";
export * from "./transport/errors.ts";
export { createInstallationClient, type InstallationClient, type ServerTime } from "./installation.ts";
export { deviceIdOf, exportKeys, generateKeys, importKeys, type Keys, type KeysJwk } from "./transport/keys.ts";
export type { FetchedInbox, InboxAck } from "./methods/inbox.ts";
export type { CallBatch, CallMethod, CallText, MethodCall, MethodParams, Outcome } from "./methods/rpc.ts";
export {
  type AgentRegistration,
  type ApiKeyClient,
  createApiKeyClient,
  createOperatorClient,
  type ListedAgent,
  type OperatorClient,
  type RegisteredAgent,
} from "./operator.ts";
export {
  type CreatedInvite,
  enrollAgent,
  type EnrollOptions,
  type Invites,
  type ListedInvite,
} from "./methods/invites.ts";
export type { OperatorRole } from "../wire/operator-role.ts";
export type { ListedOperator, Operators, RevokedOperator } from "./methods/operators.ts";
export type { AgentProfile, LookUpProfile } from "./methods/profiles.ts";
export type { Pairing, PairConfirmation, PairProfile, PairTicket, Peer } from "./methods/pairing.ts";
export type {
  EnqueueResult,
  IncomingMessage,
  OnMessage,
  OnReceipt,
  Receipt,
  RelayConnection,
  RelayEnd,
  RelayHandlers,
  RelayOptions,
  RelayState,
  Wait,
} from "./relay/connection.ts";
export {
  type ClaimedToken,
  claimDeviceToken,
  type ClaimOptions,
  createDeviceClient,
  createSharedClient,
  type DeviceClientOptions,
  type RelayClient,
  type RotatedToken,
  rotateDeviceToken,
  type SharedClientOptions,
} from "./relay-client.ts";
export { connectByTicket, type RelayTicket, type TicketConnection } from "./relay/ticket.ts";
export type { Trust, TrustedPair, TrustPage } from "./methods/trust.ts";
export { proofHeaders, type ProofVersion, signatureHeaders, signRequest } from "./transport/signing.ts";
export type { Socket, SocketConstructor, SocketEvent } from "./relay/socket.ts";
export { JsonText } from "../wire/json-text.ts";
