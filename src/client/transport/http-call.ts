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
import { type Clock, createClock } from "./clock.ts";
import { ProblemError, UnexpectedAnswerError, UnreachableError } from "./errors.ts";
import type { SignedParts } from "./signing.ts";

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
  /** Where the Sallyport is, e.g. `https://gate.example.com`. */
  readonly baseUrl: string;
  /** Instead of the platform's own. */
  readonly fetch?: Fetch | undefined;
  /** The own clock in milliseconds since 1970, instead of `Date.now`. */
  readonly now?: (() => number) | undefined;
  /** How long one call may take, in milliseconds; 30,000 by default. */
  readonly timeoutMs?: number | undefined;
};

/** Makes the headers that show who calls. Called anew for every attempt. */
export type Authorize = (parts: SignedParts) => Promise<Record<string, string>>;

/** One call. */
export type Call = {
  readonly method: "GET" | "POST" | "DELETE";
  /** Path with query. */
  readonly path: string;
  /** JSON text. */
  readonly body?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** A successful answer; `json` is undefined where there is no body. */
export type Answer = { readonly status: number; readonly json: unknown };

export type Caller = {
  /**
   * @throws ProblemError when the server refuses, UnreachableError, UnexpectedAnswerError
   */
  call(call: Call, authorize: Authorize): Promise<Answer>;
  /** Takes over the server's time. */
  correctClock(signal?: AbortSignal): Promise<void>;
  readonly clock: Clock;
  readonly baseUrl: URL;
};

const DEFAULT_TIMEOUT_MS = 30_000;
const SKEW = "PROXY_AUTH_TIMESTAMP_SKEW";

const problemSchema = z.object({
  code: z.string(),
  detail: z.optional(z.string()),
  title: z.optional(z.string()),
  requestId: z.optional(z.string()),
});
const timeSchema = z.object({ unixMs: z.number() });

/** Nobody calls: for `/v1/time`, `/health` and `/ready`. */
export const anonymous: Authorize = () => Promise.resolve({});

/**
 * @throws TypeError when the base URL is no http(s) URL
 */
export function createCaller(options: ConnectionOptions): Caller {
  const baseUrl = parseBaseUrl(options.baseUrl);
  const now = options.now ?? Date.now;
  const clock = createClock(now);
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  // Called through a closure: browsers refuse a `fetch` that has lost its global.
  const fetchIt: Fetch = options.fetch ?? ((url, init) => fetch(url, init));

  const attempt = async (call: Call, authorize: Authorize): Promise<Answer> => {
    const url = new URL(baseUrl.href.replace(/\/$/, "") + call.path);
    const body = new TextEncoder().encode(call.body ?? "");
    const authorization = await authorize({ method: call.method, url, body });
    const headers: Record<string, string> = { Accept: "application/json", ...call.headers, ...authorization };
    if (call.body !== undefined) headers["Content-Type"] = "application/json";
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = call.signal === undefined ? timeout : AbortSignal.any([timeout, call.signal]);
    let status: number;
    let retryAfter: string | null;
    let text: string;
    try {
      const init = { method: call.method, headers, signal, redirect: "manual" as const };
      const response = await fetchIt(url.href, call.body === undefined ? init : { ...init, body: call.body });
      status = response.status;
      retryAfter = response.headers.get("Retry-After");
      text = await response.text();
    } catch (error) {
      if (call.signal?.aborted === true) throw call.signal.reason;
      if (timeout.aborted)
        throw new UnreachableError("TIMEOUT", `${url.origin} did not answer within ${timeoutMs} ms`, { cause: error });
      throw new UnreachableError("UNREACHABLE", `${url.origin} cannot be reached`, { cause: error });
    }
    const json = parseJson(text);
    if (status >= 200 && status < 300) {
      if (text !== "" && json === undefined)
        throw new UnexpectedAnswerError(`${url.origin} answered with something that is no JSON`, status);
      return { status, json };
    }
    const problem = problemSchema.safeParse(json);
    if (!problem.success) {
      const hint = status >= 500 ? "its log says why" : "is this the right base URL?";
      throw new UnexpectedAnswerError(`${url.origin} answered ${status} without a problem document; ${hint}`, status);
    }
    const { code, detail, title, requestId } = problem.data;
    throw new ProblemError({
      code,
      detail: detail ?? title ?? code,
      status,
      requestId: requestId ?? null,
      retryAfterMs: retryAfter !== null && /^\d{1,9}$/.test(retryAfter) ? Number(retryAfter) * 1_000 : null,
    });
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

/** @throws TypeError when it is no http(s) URL */
export function parseBaseUrl(text: string): URL {
  const baseUrl = new URL(text);
  if (baseUrl.protocol !== "https:" && baseUrl.protocol !== "http:")
    throw new TypeError("the base URL must be an http(s) URL");
  return baseUrl;
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

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
