/** What a send asks for beside its credential: headers and the body, bounded and read before anything is kept. Contract §3. */
import type { Context } from "hono";
import type { Submission } from "../gate/protocol/submission.ts";
import { isConversationId, isReplyTo } from "../wire/frames.ts";
import { ProxyError } from "../wire/problem.ts";
import { decodeHeaderText } from "../wire/text.ts";
import { refuseOtherThanJson } from "./content-type.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

const CONVERSATION_HEADER = "X-Claw-Conversation-Id";
const CONTENT_TYPE_MAX = 128;
const WAIT_SECONDS_MAX = 15;
const IDEMPOTENCY_KEY_PATTERN = /^[\x21-\x7e]{1,255}$/;
/** W3C Trace Context §3.2: no version ff, no id of noughts. One of another form is dropped, as §3.3 says. */
const TRACEPARENT_PATTERN = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A send as its headers and its body have it. */
export type Send = {
  /** The body's own text. */
  readonly text: string;
  /** How long the answer waits for the delivery, in milliseconds. */
  readonly waitMs: number;
  readonly optional: Partial<Submission>;
};

/**
 * @returns the send
 * @throws ProxyError 400 for a header or a body that is not what the route takes, 415 for another media type
 */
export function readSend(c: Context<HttpEnv>, body: Uint8Array): Send {
  const contentType = c.req.header("Content-Type");
  refuseOtherThanJson(contentType);
  const optional: Partial<Submission> = {};
  if (contentType !== undefined) optional.contentType = contentType.slice(0, CONTENT_TYPE_MAX);
  const conversationId = readConversationId(c.req.header(CONVERSATION_HEADER));
  if (conversationId !== undefined) optional.conversationId = conversationId;
  const replyTo = c.req.header("X-Claw-Delivery-Receipt-Url");
  if (replyTo !== undefined) {
    const isOverHttp = c.req.url.startsWith("http:");
    if (!isReplyTo(replyTo, isOverHttp)) throw badHeader("X-Claw-Delivery-Receipt-Url", "must be an https URL");
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
  const waitMs = readWaitMs(c.req.header("Prefer"));
  if (waitMs > 0) optional.isAwaited = true;
  return { text: readJsonText(body), waitMs, optional };
}

/** Text: as it is where that is visible ASCII, otherwise by RFC 8187. Bytes that are neither are refused, never replaced. */
function readConversationId(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  const text = decodeHeaderText(header);
  if (!text.ok) throw badHeader(CONVERSATION_HEADER, text.error);
  if (!isConversationId(text.value)) {
    throw badHeader(CONVERSATION_HEADER, "must be 1 to 256 characters that can be seen");
  }
  return text.value;
}

/** The body as JSON text, which goes to the recipient as it is. */
function readJsonText(body: Uint8Array): string {
  try {
    const text = textDecoder.decode(body);
    JSON.parse(text);
    return text;
  } catch (error) {
    throw new ProxyError("PROXY_HOOK_INVALID_JSON", { reason: error instanceof Error ? error.name : "unreadable" });
  }
}

/** RFC 7240 §4.3; a preference that is not understood is ignored, as §2 of it says. */
function readWaitMs(prefer: string | undefined): number {
  const seconds = /(?:^|,)\s*wait\s*=\s*(\d{1,6})\s*(?:$|[,;])/i.exec(prefer ?? "")?.[1];
  return seconds === undefined ? 0 : Math.min(Number(seconds), WAIT_SECONDS_MAX) * 1_000;
}

function badHeader(name: string, problem: string): ProxyError {
  return new ProxyError("PROXY_BAD_REQUEST", { detail: `${name} ${problem}.` });
}
