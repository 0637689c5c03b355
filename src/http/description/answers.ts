/** What may be answered beside a success: problem documents by status, and the errors of JSON-RPC. */
import type { CredentialKind } from "../../auth/credential.ts";
import { PROBLEM_CONTENT_TYPE, type ProblemCode, PROBLEMS } from "../../wire/problem.ts";
import type { JsonObject } from "./schemas.ts";

/** Any request, whoever sends it. */
const ALWAYS: readonly ProblemCode[] = ["PROXY_RATE_LIMIT_EXCEEDED", "PROXY_INTERNAL"];

const PROOF: readonly ProblemCode[] = [
  "PROXY_AUTH_INVALID_PROOF",
  "PROXY_AUTH_INVALID_SIGNATURE_INPUT",
  "PROXY_AUTH_INVALID_TIMESTAMP",
  "PROXY_AUTH_TIMESTAMP_SKEW",
  "PROXY_AUTH_INVALID_NONCE",
  "PROXY_AUTH_REPLAY",
];

/** A route that asks who is calling. */
const AUTHENTICATED: readonly ProblemCode[] = [
  "PROXY_BAD_REQUEST",
  "PROXY_AUTH_MISSING_TOKEN",
  "PROXY_AUTH_INVALID_SCHEME",
  "PROXY_AUTH_INVALID_TOKEN",
  "PROXY_AUTH_FORBIDDEN",
  "PROXY_NOT_FOUND",
  "PROXY_BODY_TOO_LARGE",
  "PROXY_UNSUPPORTED_MEDIA_TYPE",
  "PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
  "OVERLOADED",
];

const BY_CREDENTIAL: Partial<Record<CredentialKind | "invite", readonly ProblemCode[]>> = {
  agent: [
    ...PROOF,
    "PROXY_AUTH_INVALID_AIT",
    "PROXY_AUTH_REVOKED",
    "PROXY_AGENT_ACCESS_REQUIRED",
    "PROXY_AGENT_ACCESS_INVALID",
  ],
  device: [...PROOF, "PROXY_AUTH_CLIENT_INVALIDATED", "PROXY_AUTH_REVOKED"],
  shared: ["PROXY_AUTH_CLIENT_INVALIDATED", "PROXY_AUTH_REVOKED"],
  invite: PROOF,
};

/** @returns the codes that a route may refuse with, for whoever may come and what it may refuse beside */
export function refusalsOf(
  credentials: readonly (CredentialKind | "invite")[],
  beside: readonly ProblemCode[] = [],
): ProblemCode[] {
  const codes = new Set<ProblemCode>([...ALWAYS, ...beside]);
  if (credentials.length > 0) for (const code of AUTHENTICATED) codes.add(code);
  for (const kind of credentials) for (const code of BY_CREDENTIAL[kind] ?? []) codes.add(code);
  return [...codes].toSorted();
}

/** What a method may refuse behind `/rpc`, once its caller is known. */
export function callRefusalsOf(beside: readonly ProblemCode[] = []): ProblemCode[] {
  return [
    ...new Set<ProblemCode>([
      "PROXY_BAD_REQUEST",
      "PROXY_AUTH_FORBIDDEN",
      "PROXY_AUTH_INVALID_TOKEN",
      "PROXY_AUTH_CLIENT_INVALIDATED",
      "PROXY_AUTH_REVOKED",
      "PROXY_NOT_FOUND",
      "PROXY_RATE_LIMIT_EXCEEDED",
      "PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
      "OVERLOADED",
      "PROXY_INTERNAL",
      ...beside,
    ]),
  ].toSorted();
}

/** @returns `responses` by status, each with the codes that it can carry */
export function problemAnswers(codes: readonly ProblemCode[]): Record<string, JsonObject> {
  const byStatus = Map.groupBy(codes, (code) => PROBLEMS[code].status);
  return Object.fromEntries(
    [...byStatus].map(([status, those]) => [
      String(status),
      {
        description: those.map((code) => `\`${code}\`: ${PROBLEMS[code].title}`).join("; "),
        ...(HEADERS[status] === undefined ? {} : { headers: HEADERS[status] }),
        content: {
          [PROBLEM_CONTENT_TYPE]: {
            schema: {
              allOf: [
                { $ref: "#/components/schemas/Problem" },
                { type: "object", properties: { status: { const: status }, code: { enum: those } } },
              ],
            },
          },
        },
      },
    ]),
  );
}

const retryAfter = { "Retry-After": { $ref: "#/components/headers/RetryAfter" } };
const HEADERS: Partial<Record<number, JsonObject>> = {
  401: {
    "WWW-Authenticate": { description: "Which credentials could help.", schema: { type: "string" } },
    "Accept-Signature": {
      description: "The profile of signatures that is taken (RFC 9421 §5.1).",
      schema: { type: "string" },
    },
  },
  429: retryAfter,
  503: retryAfter,
  507: retryAfter,
};

/** RFC 9457, as every refusal on HTTP has it. */
export const PROBLEM_SCHEMA: JsonObject = {
  type: "object",
  description: "A refusal (RFC 9457). `code` is what a program decides by; `type` is the page that explains it.",
  required: ["type", "title", "status", "detail", "code", "requestId"],
  properties: {
    type: { type: "string", format: "uri" },
    title: { type: "string" },
    status: { type: "integer" },
    detail: { type: "string" },
    code: { type: "string", enum: Object.keys(PROBLEMS) },
    requestId: { type: "string" },
  },
};

/** A call that failed, JSON-RPC 2.0 §5. */
export const RPC_FAILURE_SCHEMA: JsonObject = {
  type: "object",
  required: ["jsonrpc", "id", "error"],
  properties: {
    jsonrpc: { const: "2.0" },
    id: { type: ["string", "number", "null"] },
    error: {
      type: "object",
      required: ["code", "message"],
      properties: {
        code: { type: "integer" },
        message: { type: "string" },
        data: {
          type: "object",
          required: ["code"],
          properties: {
            code: { type: "string", enum: Object.keys(PROBLEMS) },
            retryable: { const: true },
            retryAfterMs: { type: "integer", minimum: 0 },
          },
        },
      },
    },
  },
};

/** @returns the schema of a failed call that carries one of these codes, or one of JSON-RPC's own errors */
export function rpcFailureOf(codes: readonly ProblemCode[]): JsonObject {
  return {
    allOf: [
      { $ref: "#/components/schemas/RpcFailure" },
      {
        type: "object",
        properties: {
          error: { type: "object", properties: { data: { type: "object", properties: { code: { enum: codes } } } } },
        },
      },
    ],
  };
}
