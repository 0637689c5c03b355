/** `POST /hooks/agent`: a signed message from one agent to another. Contract §3. */
import type { Context, Handler } from "hono";
import type { PassedAgent } from "../../auth/passed.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import type { Submission, SubmissionReply } from "../../gate/protocol/submission.ts";
import { errorFields } from "../../telemetry/log.ts";
import { inSpan } from "../../telemetry/span.ts";
import { isConversationId, isReplyTo } from "../../wire/frames.ts";
import { ProxyError } from "../../wire/problem.ts";
import { authenticate, beforeTheHop } from "../authenticate.ts";
import { acceptedByGate, admissionOf, gateFailed, gateStub, refusedByGate } from "../gate-client.ts";
import { chainScope, type HttpEnv } from "../middleware/request-context.ts";

const WAIT_SECONDS_MAX = 15;
const IDEMPOTENCY_KEY_PATTERN = /^[\x21-\x7e]{1,255}$/;
/** W3C Trace Context §3.2: no version ff, no id of noughts. One of another form is dropped, as §3.3 says. */
const TRACEPARENT_PATTERN = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function hook(needs: RouteNeeds): Handler<HttpEnv> {
  return async (c) => {
    const { chain } = c.get("runtime");
    const scope = chainScope(c);
    let passed = (await authenticate(c, needs)) as PassedAgent;
    const request = await beforeTheHop(c, passed, () => readSend(c, passed.body));
    let reply = await submit(c, passed, request);
    if (!reply.ok && reply.refusal.reason === "gate-peer-fenced") {
      // The pairing may be newer than what this isolate remembers of it: the store is asked, and then the gate once more.
      const rejudged = await chain.rejudgeTrust(passed, scope);
      if (!rejudged.ok) throw rejudged.error;
      passed = rejudged.value;
      reply = await submit(c, passed, request);
    }
    if (!reply.ok) throw refusedByGate(c, passed, reply.refusal);
    acceptedByGate(c, passed);

    const { deliveryId } = reply;
    const waits = request.waitMs > 0 && !reply.delivered;
    const { delivered, queueDepth } = waits ? await awaitDelivery(c, passed, reply, request.waitMs) : reply;
    const state = delivered ? "delivered" : "queued";
    return c.json({ accepted: true, deliveryId, state, delivered, queued: !delivered, queueDepth }, 202);
  };
}

type Send = { text: string; waitMs: number; optional: Partial<Submission> };

/** What the caller asks for beside its credential; bounded and parsed before anything is kept. */
function readSend(c: Context<HttpEnv>, body: Uint8Array): Send {
  const contentType = c.req.header("Content-Type");
  if (contentType !== undefined && !/^application\/(?:[a-z0-9.+-]+\+)?json\s*(?:;|$)/i.test(contentType)) {
    throw new ProxyError("PROXY_UNSUPPORTED_MEDIA_TYPE");
  }
  const optional: Partial<Submission> = {};
  if (contentType !== undefined) optional.contentType = contentType.slice(0, 128);
  const conversationId = c.req.header("X-Claw-Conversation-Id");
  if (conversationId !== undefined) {
    if (!isConversationId(conversationId)) throw badHeader("X-Claw-Conversation-Id", "must be 1 to 256 characters");
    optional.conversationId = conversationId;
  }
  const replyTo = c.req.header("X-Claw-Delivery-Receipt-Url");
  if (replyTo !== undefined) {
    if (!isReplyTo(replyTo)) throw badHeader("X-Claw-Delivery-Receipt-Url", "must be an https URL");
    optional.replyTo = replyTo;
  }
  const traceparent = c.req.header("traceparent");
  if (traceparent !== undefined && TRACEPARENT_PATTERN.test(traceparent)) optional.traceparent = traceparent;
  const key = c.req.header("Idempotency-Key");
  if (key !== undefined) {
    if (!IDEMPOTENCY_KEY_PATTERN.test(key))
      throw badHeader("Idempotency-Key", "must be 1 to 255 visible ASCII characters");
    optional.idempotency = { key, bodySha256: "" };
  }
  const forMs = waitMs(c.req.header("Prefer"));
  if (forMs > 0) optional.isAwaited = true;
  return { text: jsonText(body), waitMs: forMs, optional };
}

/** The body as JSON text, which goes to the recipient as it is. */
function jsonText(body: Uint8Array): string {
  try {
    const text = textDecoder.decode(body);
    JSON.parse(text);
    return text;
  } catch (error) {
    throw new ProxyError("PROXY_HOOK_INVALID_JSON", { reason: error instanceof Error ? error.name : "unreadable" });
  }
}

/** RFC 7240 §4.3; a preference that is not understood is ignored, as §2 of it says. */
function waitMs(prefer: string | undefined): number {
  const seconds = /(?:^|,)\s*wait\s*=\s*(\d{1,6})\s*(?:$|[,;])/i.exec(prefer ?? "")?.[1];
  return seconds === undefined ? 0 : Math.min(Number(seconds), WAIT_SECONDS_MAX) * 1_000;
}

async function submit(c: Context<HttpEnv>, passed: PassedAgent, { text, optional }: Send): Promise<SubmissionReply> {
  const { trust, principal, body, bodySha256 } = passed;
  if (trust === null) throw new ProxyError("PROXY_INTERNAL", { reason: "a send that nobody judged" });
  const submission: Submission = {
    ...optional,
    ...(optional.idempotency === undefined ? {} : { idempotency: { key: optional.idempotency.key, bodySha256 } }),
    admission: admissionOf(passed),
    to: trust.recipientDid,
    trustEpoch: trust.epoch,
    bytes: body.byteLength,
  };
  try {
    const gate = gateStub(c, principal.agentDid);
    const reply = await inSpan("gate.submit", () => gate.submit(JSON.stringify(submission), text));
    return JSON.parse(reply) as SubmissionReply;
  } catch (error) {
    return { ok: false, refusal: gateFailed(c, error) };
  }
}

/** The message is on disk by now: whatever happens while waiting, the answer is a 202. */
async function awaitDelivery(
  c: Context<HttpEnv>,
  passed: PassedAgent,
  { deliveryId, queueDepth }: { deliveryId: string; queueDepth: number },
  forMs: number,
): Promise<{ delivered: boolean; queueDepth: number }> {
  try {
    return await gateStub(c, passed.principal.agentDid).awaitDelivery(deliveryId, forMs);
  } catch (error) {
    c.get("log").warn("hook.wait_broken", { deliveryId, ...errorFields(error) });
    return { delivered: false, queueDepth };
  }
}

function badHeader(name: string, problem: string): ProxyError {
  return new ProxyError("PROXY_BAD_REQUEST", { detail: `${name} ${problem}.` });
}
