/**
 * One HTTP call to a Sallyport: authorized, bounded in time, its refusal turned into an error.
 *
 * @example
 * ```ts
 * const gate = createInstallationClient({ baseUrl, timeoutMs: 5_000, fetch: (url, init) => fetch(url, init) });
 * console.log(Math.abs((await gate.serverTime()).offsetMs) < 5_000); // true
 * ```
 */
import * as z from "zod/mini";
import { parseRetryAfterMs } from "../../resilience/retry-after.ts";
import { type Clock, createClock } from "./clock.ts";
import { InvalidArgumentError, ProblemError, UnexpectedAnswerError, UnreachableError } from "./errors.ts";
import { parseUrl } from "../../wire/url.ts";
import { PROOF_V2_TAG } from "../../wire/proof-v2.ts";
import type { ProofVersion, SignedRequest } from "./signing.ts";
import type { SocketConstructor } from "../relay/socket.ts";

/** `fetch`, as far as it is used. */
export type Fetch = (
  url: string,
  init: {
    method: string;
    headers: Record<string, string>;
    body?: string;
    signal: AbortSignal;
    redirect: "manual";
  },
) => Promise<Response>;

/** What every client takes. */
export type ConnectionOptions = {
  /**
   * Where the Sallyport is, e.g. `https://gate.example.com`. A path in it is that of a proxy in front, which takes it off:
   * requests go there, and are signed without it.
   */
  readonly baseUrl: string;
  /** Instead of the platform's own. */
  readonly fetch?: Fetch | undefined;
  /** Instead of the platform's own, for the relay; needed where the platform has none (Node 20). */
  readonly WebSocket?: SocketConstructor | undefined;
  /** The own clock in milliseconds since 1970, instead of `Date.now`. */
  readonly now?: (() => number) | undefined;
  /** How long one call may take, in milliseconds; 30,000 by default. */
  readonly timeoutMs?: number | undefined;
  /** Believes the server's clock also where it is more than ten minutes ahead of the own; false by default. */
  readonly trustServerClock?: boolean | undefined;
  /**
   * Called when the own clock was refused and the server's is taken instead: by how many milliseconds that is ahead. By
   * default that is a warning on the console.
   */
  readonly onClockCorrection?: ((offsetMs: number) => void) | undefined;
};

/** Makes the headers that show who calls. Called anew for every attempt. @param parts as the server will see them */
export type Authorize = (
  request: SignedRequest & { readonly version: ProofVersion },
) => Promise<Record<string, string>>;

/** One call. */
export type Call = {
  readonly method: "GET" | "POST" | "DELETE";
  /** Path with query, from the server's own root. */
  readonly path: string;
  /** JSON text. */
  readonly body?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** A successful answer: its own text, and the value that stands for; undefined where there is no body. */
export type Answer = { readonly status: number; readonly text: string; readonly json: unknown };

/** Makes calls to one installation. */
export type Caller = {
  /**
   * Makes a call; one that the server refuses for the clock's sake is made once more by the server's clock.
   *
   * @throws ProblemError when the server refuses, UnreachableError, UnexpectedAnswerError, ClockNotTrustedError,
   *         InvalidArgumentError
   */
  call(call: Call, authorize: Authorize): Promise<Answer>;
  /** Takes over the server's time. @throws ClockNotTrustedError, and as {@link Caller.call} */
  correctClock(signal?: AbortSignal): Promise<void>;
  readonly clock: Clock;
  readonly baseUrl: URL;
};

const DEFAULT_TIMEOUT_MS = 30_000;
const SKEW = "PROXY_AUTH_TIMESTAMP_SKEW";
/** What stands in a header. Everything else would be refused by the platform as if the server were out of reach. */
const HEADER_VALUE = /^[\x20-\x7e]*$/;

const problemSchema = z.object({
  code: z.string(),
  detail: z.optional(z.string()),
  title: z.optional(z.string()),
  requestId: z.optional(z.string()),
});
const timeSchema = z.object({ unixMs: z.number() });

/** For `/v1/time`, `/health` and `/ready`, which need no credential. */
export const anonymous: Authorize = () => Promise.resolve({});

/**
 * @returns what makes the calls of one client
 * @throws InvalidArgumentError when the base URL is none that requests can be made from
 */
export function createCaller(options: ConnectionOptions): Caller {
  const baseUrl = parseBaseUrl(options.baseUrl);
  const now = options.now ?? Date.now;
  const clock = createClock({
    now,
    trustServer: options.trustServerClock ?? false,
    onCorrection: options.onClockCorrection ?? warnOfClock,
  });
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  // Called through a closure: browsers refuse a `fetch` that has lost its global.
  const fetchIt: Fetch = options.fetch ?? ((url, init) => fetch(url, init));

  // Version 2 until a server turns out not to know it; one that has taken it once is never asked with less.
  let version: ProofVersion = 2;
  let hasTakenV2 = false;

  const attempt = async (call: Call, authorize: Authorize): Promise<Answer> => {
    const url = urlOf(baseUrl, call.path);
    const signedWith = version;
    const headers = await headersOf(call, baseUrl, authorize, signedWith);
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = call.signal === undefined ? timeout : AbortSignal.any([timeout, call.signal]);
    let response: Response;
    let text: string;
    try {
      const init = { method: call.method, headers, signal, redirect: "manual" as const };
      response = await fetchIt(url.href, call.body === undefined ? init : { ...init, body: call.body });
      text = await response.text();
    } catch (error) {
      if (call.signal?.aborted === true) throw call.signal.reason;
      if (timeout.aborted)
        throw new UnreachableError("TIMEOUT", `${url.origin} did not answer within ${timeoutMs} ms`, { cause: error });
      throw new UnreachableError("UNREACHABLE", `${url.origin} cannot be reached${whyOf(error)}`, { cause: error });
    }
    const isSigned = "Signature-Input" in headers;
    if (isSigned && response.status === 401 && !hasTakenV2 && !offersV2(response.headers)) {
      version = 1;
      return attempt(call, authorize);
    }
    if (isSigned && response.ok) hasTakenV2 = true;
    return answerOf(response, text, url.origin, clock.nowMs);
  };

  const correctClock = async (signal?: AbortSignal): Promise<void> => {
    const sentAtMs = now();
    const { json } = await attempt({ method: "GET", path: "/v1/time", signal }, anonymous);
    clock.correct(parseAnswer(timeSchema, json).unixMs, sentAtMs);
  };

  return {
    baseUrl,
    clock,
    correctClock,
    async call(call, authorize) {
      try {
        return await attempt(call, authorize);
      } catch (error) {
        if (!(error instanceof ProblemError) || error.code !== SKEW) throw error;
        await correctClock(call.signal);
        return attempt(call, authorize);
      }
    },
  };
}

/** @throws InvalidArgumentError when it is no http(s) URL, or has a query, a fragment or a credential in it */
export function parseBaseUrl(text: string): URL {
  const baseUrl = typeof text === "string" ? parseUrl(text) : null;
  if (baseUrl?.protocol !== "https:" && baseUrl?.protocol !== "http:")
    throw new InvalidArgumentError("baseUrl", "is no http(s) URL");
  if (baseUrl.search !== "" || baseUrl.hash !== "" || baseUrl.username !== "" || baseUrl.password !== "")
    throw new InvalidArgumentError("baseUrl", "must have no query, no fragment, no user name and no password");
  return baseUrl;
}

/** @returns where a call goes: its path behind that of the base URL */
export function urlOf(baseUrl: URL, path: string): URL {
  return new URL(baseUrl.href.replace(/\/+$/, "") + path);
}

/**
 * @returns the answer in the shape that the schema gives
 * @throws UnexpectedAnswerError when it has another
 */
export function parseAnswer<T extends z.ZodMiniType>(schema: T, json: unknown): z.infer<T> {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.map(String).join(".") ?? "";
  throw new UnexpectedAnswerError(`the answer is not what this call gives${where === "" ? "" : ` (${where})`}`, null);
}

async function headersOf(
  call: Call,
  baseUrl: URL,
  authorize: Authorize,
  version: ProofVersion,
): Promise<Record<string, string>> {
  const body = new TextEncoder().encode(call.body ?? "");
  // As the server sees it, behind whatever takes the base URL's path off.
  const url = new URL(call.path, baseUrl.origin);
  const headers: Record<string, string> = { Accept: "application/json", ...call.headers };
  if (call.body !== undefined) headers["Content-Type"] = "application/json";
  for (const [name, value] of Object.entries(headers)) {
    if (!HEADER_VALUE.test(value)) throw new InvalidArgumentError(name, "is none that a header can carry");
  }
  const authorization = await authorize({ method: call.method, url, body, headers, version });
  for (const [name, value] of Object.entries(authorization)) {
    if (!HEADER_VALUE.test(value)) throw new InvalidArgumentError(name, "is none that a header can carry");
  }
  return { ...headers, ...authorization };
}

/** RFC 9421 §5.1: whether the server says that it takes version 2 of the proof. */
function offersV2(headers: Headers): boolean {
  return headers.get("Accept-Signature")?.includes(`"${PROOF_V2_TAG}"`) ?? false;
}

function answerOf({ status, headers }: Response, text: string, origin: string, nowMs: () => number): Answer {
  const json = parseJson(text);
  if (status >= 200 && status < 300) {
    if (text !== "" && json === undefined)
      throw new UnexpectedAnswerError(`${origin} answered with something that is no JSON`, status);
    return { status, text, json };
  }
  const problem = problemSchema.safeParse(json);
  if (!problem.success) {
    const hint = status >= 500 ? "its log says why" : "is this the right base URL?";
    throw new UnexpectedAnswerError(`${origin} answered ${status} without a problem document; ${hint}`, status, {
      json,
    });
  }
  const { code, detail, title, requestId } = problem.data;
  throw new ProblemError({
    code,
    detail: detail ?? title ?? code,
    status,
    requestId: requestId ?? null,
    retryAfterMs: parseRetryAfterMs(headers.get("Retry-After"), nowMs()) ?? null,
  });
}

/** What the platform says of a failed `fetch`: a code of the system or of TLS, or a few words; nothing of the request. */
function whyOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  if (!(cause instanceof Error)) return "";
  return ` (${"code" in cause && typeof cause.code === "string" ? cause.code : cause.message})`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function warnOfClock(offsetMs: number): void {
  console.warn(
    `sallyport: this clock is ${Math.round(offsetMs / 1_000)} s behind the server's, whose time is used instead`,
  );
}
