/**
 * The routes that stand before no method, described: what they take, what they answer, and what they refuse. A route that
 * stands before a method is described by that method and its line in `operations.ts`.
 */
import type { CredentialKind } from "../../auth/credential.ts";
import { ACCESS_VALIDATE_PATH, CRL_PATH, KEYS_PATH } from "../../wire/registry-documents.ts";
import type { ProblemCode } from "../../wire/problem.ts";
import { EXAMPLE } from "./operations.ts";
import type { JsonObject } from "./schemas.ts";

export type RouteDescription = {
  readonly tag: string;
  readonly summary: string;
  readonly description?: string;
  /** Who may come; nobody is asked where it is empty. */
  readonly credentials?: readonly (CredentialKind | "invite")[];
  /** The proof of possession alone, by a key that the body names. */
  readonly proofOnly?: true;
  readonly parameters?: readonly JsonObject[];
  readonly body?: { readonly schema: JsonObject; readonly example?: unknown };
  /** Successes by status; a string is the description of an answer without a body. */
  readonly answers: Readonly<Record<string, string | Answer>>;
  readonly refuses?: readonly ProblemCode[];
};

export type Answer = { readonly description: string; readonly type?: string; readonly schema: JsonObject };

const text: JsonObject = { type: "string" };
const timeMs: JsonObject = { type: "integer", minimum: 0 };
const flag: JsonObject = { type: "boolean" };
const did: JsonObject = { type: "string", pattern: "^did:cdi:[a-z0-9.-]+:agent:[0-9A-HJKMNP-TV-Z]{26}$" };

const sent = object({
  accepted: { const: true },
  deliveryId: text,
  state: { enum: ["queued", "delivered", "handled", "failed", "dead_lettered"] },
  delivered: flag,
  queued: flag,
  queueDepth: timeMs,
});

const sentToGroup = object({
  accepted: { const: true },
  groupId: text,
  deliveries: { type: "array", items: object({ agentDid: did, deliveryId: text }) },
});

const HOOK: RouteDescription = {
  tag: "Messages",
  summary: "Send a message to another agent",
  description: "202 means: it is on disk, and will be delivered or reported dead.",
  credentials: ["agent"],
  parameters: [
    header("X-Claw-Recipient-Agent-Did", "To whom; may be left out for a whole group", {
      ...did,
      examples: [EXAMPLE.peerAgentDid],
    }),
    header("X-Claw-Group-Id", "A group that both are in; without a recipient, all its other members", text),
    header("X-Claw-Conversation-Id", "Visible ASCII, or RFC 8187", text),
    header("X-Claw-Delivery-Receipt-Url", "Handed to the recipient as `replyTo`; never called by this proxy", text),
    header("Idempotency-Key", "1 to 255 visible ASCII characters; kept for 24 h for each sender and recipient", text),
    header("Prefer", "`wait=N`: answer when it is delivered, or after N seconds, at most 15", text),
    header("traceparent", "W3C Trace Context; passed on", text),
  ],
  body: { schema: { description: "Any JSON, at most 1 MiB; passed on to the byte." }, example: { text: "hello" } },
  answers: { "202": { description: "Accepted, and on disk.", schema: { anyOf: [sent, sentToGroup] } } },
  refuses: [
    "PROXY_HOOK_INVALID_JSON",
    "PROXY_HOOK_RECIPIENT_REQUIRED",
    "PROXY_HOOK_RECIPIENT_INVALID",
    "PROXY_TRUST_UNAVAILABLE",
    "PROXY_CONFLICT",
    "PROXY_RELAY_QUEUE_FULL",
    "PROXY_QUOTA_EXCEEDED",
  ],
};

const CONNECT: RouteDescription = {
  tag: "Relay",
  summary: "Open a relay socket",
  description: "WebSocket upgrade; the frames are described in docs/asyncapi.yaml and docs/protocol.md.",
  credentials: ["agent", "device", "shared"],
  parameters: [header("Sec-WebSocket-Protocol", "`sallyport.v1`, and `sallyport.ticket.<ticket>` for a ticket", text)],
  answers: { "101": "The socket is open." },
  refuses: ["PROXY_UPGRADE_REQUIRED"],
};

/** By method and path, as `app.ts` writes them. */
export const ROUTES: Readonly<Record<string, RouteDescription>> = {
  "POST /hooks/agent": HOOK,
  "POST /hooks/message": { ...HOOK, summary: "Send a message to another agent (the older name)" },
  "GET /relay/connect": CONNECT,
  "GET /v1/relay/connect": CONNECT,
  "POST /rpc": {
    tag: "RPC",
    summary: "Call methods, one or a batch of at most 50",
    description:
      "JSON-RPC 2.0. A failed authentication is a problem document; everything else is a 200. Each method is described at `/rpc#<method>`: the part behind the # is not sent.",
    credentials: ["agent", "device", "shared", "apiKey", "operator"],
    parameters: [
      header("X-Sallyport-Bookmark", "A bookmark of an earlier answer: what is read is at least as new", text),
    ],
    body: {
      schema: {
        anyOf: [
          { $ref: "#/components/schemas/RpcRequest" },
          { type: "array", minItems: 1, maxItems: 50, items: { $ref: "#/components/schemas/RpcRequest" } },
        ],
      },
      example: { jsonrpc: "2.0", id: 1, method: "task/list", params: { limit: 20 } },
    },
    answers: {
      "200": {
        description: "The response, or one for each call of a batch in its order.",
        schema: {
          anyOf: [
            { $ref: "#/components/schemas/RpcResponse" },
            { type: "array", items: { $ref: "#/components/schemas/RpcResponse" } },
          ],
        },
      },
      "204": "Nothing but notifications.",
    },
  },
  "POST /v1/devices/claim": {
    tag: "Devices",
    summary: "Fetch a device's new token by a proof of its own key",
    proofOnly: true,
    body: {
      schema: object({ agentDid: did, deviceId: { type: "string", pattern: "^[A-Za-z0-9_-]{22}$" } }),
      example: { agentDid: EXAMPLE.agentDid, deviceId: EXAMPLE.deviceId },
    },
    answers: {
      "200": {
        description: "The token, shown once.",
        schema: object({ token: text, scopes: { type: "array", items: text }, epoch: timeMs, expiresAtMs: timeMs }),
      },
    },
    refuses: [
      "PROXY_BAD_REQUEST",
      "PROXY_AUTH_INVALID_TOKEN",
      "PROXY_CONFLICT",
      "PROXY_BODY_TOO_LARGE",
      "PROXY_UNSUPPORTED_MEDIA_TYPE",
      "PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
      "OVERLOADED",
    ],
  },
  "GET /join": {
    tag: "Identity",
    summary: "The page behind an invite's link",
    answers: { "200": { description: "What to run, in plain words.", type: "text/html", schema: text } },
  },
  [`GET ${KEYS_PATH}`]: {
    tag: "Registry",
    summary: "The keys that identity tokens and the revocation list are signed with",
    answers: {
      "200": {
        description: "The keys.",
        schema: object({
          keys: {
            type: "array",
            items: object({
              kid: text,
              alg: { const: "EdDSA" },
              crv: { const: "Ed25519" },
              x: text,
              status: { enum: ["active", "revoked"] },
            }),
          },
        }),
      },
    },
    refuses: ["PROXY_NOT_FOUND", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"],
  },
  [`GET ${CRL_PATH}`]: {
    tag: "Registry",
    summary: "The signed list of revoked identity tokens",
    answers: { "200": { description: "A compact JWS of type CRL.", schema: object({ crl: text }) } },
    refuses: ["PROXY_NOT_FOUND", "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"],
  },
  [`POST ${ACCESS_VALIDATE_PATH}`]: {
    tag: "Registry",
    summary: "Judge an access token",
    parameters: [header("X-Claw-Agent-Access", "The token", text)],
    body: {
      schema: object({ agentDid: text, aitJti: text }),
      example: { agentDid: EXAMPLE.agentDid, aitJti: EXAMPLE.ulid },
    },
    answers: { "204": "It is valid." },
    refuses: [
      "PROXY_BAD_REQUEST",
      "PROXY_AGENT_ACCESS_INVALID",
      "PROXY_NOT_FOUND",
      "PROXY_BODY_TOO_LARGE",
      "PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
    ],
  },
  "POST /v1/agents/enroll": {
    tag: "Identity",
    summary: "Register an agent of one's own by an invite",
    credentials: ["invite"],
    // Of its method; the route reads the invite and the proof itself.
    body: { schema: { $ref: "#/components/schemas/identity.enroll.params" }, example: { $method: "identity.enroll" } },
    answers: {
      "201": {
        description: "The agent, with its first credentials.",
        schema: { $ref: "#/components/schemas/identity.enroll.result" },
      },
    },
    refuses: ["PROXY_CONFLICT", "PROXY_QUOTA_EXCEEDED"],
  },
  "GET /v1/time": {
    tag: "Operation",
    summary: "The time that proofs are judged by",
    answers: {
      "200": {
        description: "Milliseconds since 1970, and the hosts that a proof may name.",
        schema: object({ unixMs: timeMs, authorities: { type: "array", items: text } }),
      },
    },
  },
  "GET /health": {
    tag: "Operation",
    summary: "Whether this program runs",
    answers: { "200": { description: "It runs.", schema: object({ status: { const: "ok" }, version: text }) } },
  },
  "GET /ready": {
    tag: "Operation",
    summary: "Whether a request could be served",
    description: "Each dependency with its breaker's state and the age of what is held of it.",
    answers: {
      "200": { description: "It could.", schema: readiness("ready") },
      "503": { description: "It could not.", schema: readiness("unavailable") },
    },
  },
  "GET /metrics": {
    tag: "Operation",
    summary: "The numbers of this installation, as OpenMetrics text",
    credentials: ["operator"],
    answers: {
      "200": { description: "See docs/metrics.md.", type: "application/openmetrics-text", schema: text },
    },
  },
  "GET /openapi.json": {
    tag: "Operation",
    summary: "This document",
    answers: { "200": { description: "OpenAPI 3.1.", schema: { type: "object" } } },
  },
};

function object(properties: Record<string, JsonObject>): JsonObject {
  return { type: "object", required: Object.keys(properties), properties };
}

function readiness(status: "ready" | "unavailable"): JsonObject {
  return object({
    status: { const: status },
    dependencies: { type: "object", additionalProperties: { type: "object" } },
  });
}

function header(name: string, description: string, schema: JsonObject, required = false): JsonObject {
  return { name, in: "header", required, description, schema };
}
