/** What the local API answers: pure of HTTP, so that each route is one function from a body to an answer. */
import { randomUUID } from "node:crypto";
import * as z from "zod/mini";
import { InvalidArgumentError, type Peer, ProblemError, SallyportError } from "../../client/index.ts";
import { rawMember } from "../../wire/json-text.ts";
import type { Delivery, Outcome } from "../message.ts";
import { type Outgoing, OutgoingRefusal } from "../outgoing.ts";
import type { PullQueue } from "../target/pull.ts";

/** An answer: JSON, or text as it is. */
export type ApiAnswer = {
  readonly status: number;
  readonly json?: unknown;
  readonly text?: string;
  readonly type?: string;
};

/** What the routes work with. */
export type ApiDeps = {
  readonly outgoing: Outgoing;
  /** Null where messages are pushed to the program. */
  readonly pull: PullQueue | null;
  /** A message that has come, for a reply to it; null where it is not remembered. */
  readonly received: (deliveryId: string) => Delivery | null;
  readonly peers: () => Promise<readonly Peer[]>;
  readonly status: () => unknown;
  /** Null where metrics are not served. */
  readonly metrics: (() => string) | null;
};

/** A request as the routes see it. `text` is the body's JSON text. */
export type ApiRequest = { readonly query: URLSearchParams; readonly text: string; readonly signal: AbortSignal };

/** A route: its method and path, and what it does. */
export type ApiRoute = (deps: ApiDeps, request: ApiRequest) => Promise<ApiAnswer> | ApiAnswer;

const INBOX_LIMIT_MAX = 100;
const WAIT_SECONDS_MAX = 25;

const key = z.optional(z.string().check(z.regex(/^[\x21-\x7e]{1,255}$/)));
const sendBody = z.object({
  to: z.string(),
  conversationId: z.optional(z.string()),
  receiptUrl: z.optional(z.string()),
  idempotencyKey: key,
});
const replyBody = z.object({ deliveryId: z.string(), idempotencyKey: key });
const outboundBody = z.object({
  toAgentDid: z.string(),
  conversationId: z.optional(z.string()),
  replyTo: z.optional(z.string()),
});
const ackBody = z.object({
  acks: z
    .array(
      z.object({
        deliveryId: z.string(),
        accepted: z.boolean(),
        reason: z.optional(z.string()),
        retryAfterMs: z.optional(z.number().check(z.gte(0), z.lte(3_600_000))),
      }),
    )
    .check(z.maxLength(INBOX_LIMIT_MAX)),
});

/** @returns the request's body by a schema, and the text of its payload @throws ApiProblem */
function bodyOf<T>(schema: z.ZodMiniType<T>, text: string): T {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new ApiProblem(400, "the body is no JSON", error);
  }
  const result = schema.safeParse(parsed);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new ApiProblem(400, `${issue?.path.join(".") ?? "body"}: ${issue?.message ?? "malformed"}`);
}

/** The payload keeps its own text. */
function payloadIn(text: string): string {
  const payload = rawMember(text, "payload");
  if (!payload.ok) throw new ApiProblem(400, "payload: stands there twice");
  if (payload.value === null) throw new ApiProblem(400, "payload: is missing");
  return payload.value;
}

/** A request that is wrong. */
export class ApiProblem extends Error {
  override readonly name = "ApiProblem";
  readonly status: number;

  constructor(status: number, message: string, cause?: unknown) {
    super(message, { cause });
    this.status = status;
  }
}

/** `POST /v1/send` */
const send: ApiRoute = async ({ outgoing }, { text }) => {
  const { idempotencyKey, ...message } = bodyOf(sendBody, text);
  const payloadText = payloadIn(text);
  return { status: 202, json: await outgoing.send({ ...message, payloadText, key: idempotencyKey ?? randomUUID() }) };
};

/** `POST /v1/reply`: to the sender of a message that came, in its conversation. */
const reply: ApiRoute = async ({ outgoing, received }, { text }) => {
  const { deliveryId, idempotencyKey } = bodyOf(replyBody, text);
  const message = received(deliveryId);
  if (message === null) throw new ApiProblem(404, "no such message is remembered here");
  if (message.fromAgentDid === null) throw new ApiProblem(409, "it has no sending agent");
  const payloadText = payloadIn(text);
  const { fromAgentDid: to, conversationId } = message;
  return {
    status: 202,
    json: await outgoing.send({ to, conversationId, payloadText, key: idempotencyKey ?? randomUUID() }),
  };
};

/** `POST /v1/outbound`: a send in clawdentity's form. */
const outbound: ApiRoute = async ({ outgoing }, { text }) => {
  const { toAgentDid: to, conversationId, replyTo: receiptUrl } = bodyOf(outboundBody, text);
  await outgoing.send({ to, conversationId, receiptUrl, payloadText: payloadIn(text), key: randomUUID() });
  return { status: 202, json: { accepted: true } };
};

/** `GET /v1/inbox` */
const inbox: ApiRoute = async ({ pull }, { query, signal }) => {
  if (pull === null) throw new ApiProblem(409, "messages are pushed to a program: there is nothing to fetch");
  const limit = numberIn(query, "limit", 1, INBOX_LIMIT_MAX, INBOX_LIMIT_MAX);
  const waitSeconds = numberIn(query, "waitSeconds", 0, WAIT_SECONDS_MAX, 0);
  const messages = await pull.take(limit, waitSeconds * 1_000, signal);
  const written = messages.map(({ payloadText, ...rest }) => {
    const head = JSON.stringify(rest).slice(0, -1);
    return `${head},"payload":${payloadText}}`;
  });
  return { status: 200, text: `{"messages":[${written.join(",")}]}`, type: "application/json" };
};

/** `POST /v1/inbox/ack` */
const acknowledge: ApiRoute = ({ pull }, { text }) => {
  if (pull === null) throw new ApiProblem(409, "messages are pushed to a program: there is nothing to acknowledge");
  const { acks } = bodyOf(ackBody, text);
  const settled = acks.filter(({ deliveryId, ...ack }) => pull.settle({ deliveryId, outcome: outcomeOf(ack) }));
  return { status: 200, json: { acknowledged: settled.length } };
};

function outcomeOf(ack: {
  accepted: boolean;
  reason?: string | undefined;
  retryAfterMs?: number | undefined;
}): Outcome {
  if (ack.accepted) return { kind: "handled" };
  const reason = ack.reason ?? "refused by the program";
  return ack.retryAfterMs === undefined
    ? { kind: "refused", reason }
    : { kind: "later", reason, retryAfterMs: ack.retryAfterMs };
}

function numberIn(query: URLSearchParams, name: string, min: number, max: number, otherwise: number): number {
  const given = query.get(name);
  if (given === null) return otherwise;
  const value = Number(given);
  if (/^\d{1,4}$/.test(given) && value >= min && value <= max) return value;
  throw new ApiProblem(400, `${name}: must be a whole number from ${min} to ${max}`);
}

/** Every route of the local API. */
export const API_ROUTES: Readonly<Record<string, ApiRoute>> = {
  "POST /v1/send": send,
  "POST /v1/reply": reply,
  "POST /v1/outbound": outbound,
  "GET /v1/inbox": inbox,
  "POST /v1/inbox/ack": acknowledge,
  "GET /v1/peers": async ({ peers }) => ({ status: 200, json: { peers: await peers() } }),
  "GET /v1/status": ({ status }) => ({ status: 200, json: status() }),
  "GET /metrics": ({ metrics }) => {
    if (metrics === null) throw new ApiProblem(404, "metrics are served with --metrics alone");
    return { status: 200, text: metrics(), type: "application/openmetrics-text; version=1.0.0; charset=utf-8" };
  },
};

/** @returns what went wrong, as a problem document (RFC 9457); null for a defect, which is thrown on */
export function problemOf(
  error: unknown,
): { status: number; detail: string; code?: string; retryAfterMs?: number } | null {
  if (error instanceof ApiProblem) return { status: error.status, detail: error.message };
  if (error instanceof InvalidArgumentError) return { status: 400, detail: error.message };
  if (error instanceof OutgoingRefusal) return { status: error.reason === "full" ? 507 : 409, detail: error.message };
  if (error instanceof ProblemError) {
    const { status, message: detail, code, retryAfterMs } = error;
    return { status, detail, code, ...(retryAfterMs === null ? {} : { retryAfterMs }) };
  }
  if (error instanceof SallyportError) return { status: 503, detail: error.message, code: error.code };
  return null;
}
