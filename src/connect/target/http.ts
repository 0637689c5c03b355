/** Hands messages to a program that has an HTTP endpoint. */
import { parseRetryAfterMs } from "../../resilience/retry-after.ts";
import { cutToCodePoints } from "../../wire/text.ts";
import type { Fetch } from "../../client/index.ts";
import type { Format } from "../format/format.ts";
import { type Delivery, type Outcome, REASON_MAX, type Target } from "../message.ts";
import { localSignature } from "../signature.ts";

/** What a program's endpoint is reached by. */
export type HttpTargetOptions = {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly format: Format;
  /** For the signature. */
  readonly key: Uint8Array;
  /** How long the program may take. */
  readonly timeoutMs: number;
  readonly now: () => number;
  /** Instead of the platform's own. */
  readonly fetch?: Fetch | undefined;
};

/** Answers of HTTP that are about the moment, not about the message. */
const LATER = new Set([408, 425, 429]);
const ANSWER_MAX_BYTES = 16_384;

/** @returns the target; 2xx is handled, 408, 425, 429, 5xx and no answer are later, any other 4xx is refused */
export function httpTarget(options: HttpTargetOptions): Target {
  return async (message, signal) => {
    const formatted = options.format(message);
    if (typeof formatted === "string") return { kind: "refused", reason: formatted };
    const timeout = AbortSignal.timeout(options.timeoutMs);
    try {
      const response = await (options.fetch ?? ((url, init) => fetch(url, init)))(options.url.href, {
        method: "POST",
        headers: { ...formatted.headers, ...options.headers, ...signatureOf(message, formatted.body, options) },
        body: formatted.body,
        redirect: "manual",
        signal: AbortSignal.any([signal, timeout]),
      });
      return await outcomeOf(response);
    } catch (error) {
      if (signal.aborted) throw error;
      return { kind: "later", reason: timeout.aborted ? `no answer within ${options.timeoutMs} ms` : failureOf(error) };
    }
  };
}

function signatureOf(
  { deliveryId }: Delivery,
  body: string,
  { key, url, now }: HttpTargetOptions,
): Record<string, string> {
  return localSignature(key, { method: "POST", url, body, deliveryId }, now());
}

async function outcomeOf(response: Response): Promise<Outcome> {
  const { status } = response;
  if (status >= 200 && status < 300) {
    // Said with the status: what comes of the rest, or never comes, changes nothing.
    void response.body?.cancel().catch(() => undefined);
    return { kind: "handled" };
  }
  const text = await textWithin(response);
  // The program's address is what the user gave: whoever answers with another one does not choose where messages go.
  if (status >= 300 && status < 400) return { kind: "later", reason: `answered ${status}: redirects are not followed` };
  if (LATER.has(status) || status >= 500 || status < 200) {
    const retryAfterMs = parseRetryAfterMs(response.headers.get("Retry-After"), Date.now());
    return { kind: "later", reason: `answered ${status}`, retryAfterMs };
  }
  return { kind: "refused", reason: cutToCodePoints(reasonIn(text) ?? `the program answered ${status}`, REASON_MAX) };
}

/** A program that means its sender to read why says so in a problem document (RFC 9457), or as `{"reason": …}`. */
function reasonIn(text: string): string | null {
  try {
    const { reason, detail } = JSON.parse(text) as { reason?: unknown; detail?: unknown };
    const said = reason ?? detail;
    return typeof said === "string" && said !== "" ? said : null;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}

/** The beginning of an answer; the rest is nobody's business here. */
async function textWithin(response: Response): Promise<string> {
  if (response.body === null) return "";
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body) {
    bytes += chunk.byteLength;
    text += decoder.decode(chunk, { stream: true });
    if (bytes > ANSWER_MAX_BYTES) break;
  }
  return text;
}

/** `fetch` says that it failed, and only its cause says why. */
function failureOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(cause instanceof Error)) return "no connection";
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : null;
  return code === "ECONNREFUSED" ? "nothing listens there" : (code ?? cause.message);
}
