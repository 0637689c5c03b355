/**
 * `sallyport/client`: what an agent, a relay client or an operator imports. Needs Web Crypto with Ed25519, `fetch` and
 * `WebSocket` from the platform and nothing else: Node ≥ 22, Workers, browsers (docs/protocol.md §8 says how a page reaches
 * a Sallyport of another origin).
 *
 * @module
 */
export {
  type Accepted,
  type AgentClient,
  type AgentClientOptions,
  createAgentClient,
  type DeliveryStatus,
  type Message,
} from "./agent.ts";
export { type AgentCredential, aitLifetime, type CredentialStore, type OnCredential } from "./agent-credential.ts";
export type { AuditEntry, AuditPage, AuditQuery } from "./audit.ts";
export type { ConnectionOptions, Fetch } from "./caller.ts";
export type { DeadLetter, DeadLetterPage, DeadLetters } from "./dead-letters.ts";
export {
  type ApprovedDevice,
  type DeviceRequest,
  type Devices,
  type EndedDevice,
  type PairedDevice,
  pairingDigest,
  type PendingDevice,
  type RequestedDevice,
  type RotatedDevice,
  type RotatedSecret,
  type Scope,
  SCOPES,
} from "./devices.ts";
export * from "./errors.ts";
export { createInstallationClient, type InstallationClient } from "./installation.ts";
export { deviceIdOf, exportKeys, generateKeys, importKeys, type Keys, type KeysJwk } from "./keys.ts";
export type { CallBatch, CallMethod, MethodCall, Outcome } from "./methods.ts";
export {
  type AgentRegistration,
  createApiKeyClient,
  createOperatorClient,
  type ListedAgent,
  type OperatorClient,
  type RegisteredAgent,
} from "./operator.ts";
export type { Pairing, PairConfirmation, PairProfile, PairTicket, Peer } from "./pairing.ts";
export type {
  EnqueueResult,
  IncomingMessage,
  OnMessage,
  Receipt,
  RelayConnection,
  RelayEnd,
  RelayHandlers,
  RelayOptions,
  RelayState,
} from "./relay.ts";
export {
  type ClaimedToken,
  claimDeviceToken,
  createDeviceClient,
  createSharedClient,
  type DeviceClientOptions,
  type RelayClient,
  type SharedClientOptions,
} from "./relay-client.ts";
export { connectByTicket, type RelayTicket, type TicketConnection } from "./relay-ticket.ts";
export type { Trust, TrustedPair, TrustPage } from "./trust.ts";
export { proofHeaders, signRequest } from "./signing.ts";
export type { Socket, SocketConstructor, SocketEvent } from "./socket.ts";
