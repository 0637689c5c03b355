/**
 * What an installation says to anyone: its clock, and whether it is alive and ready.
 *
 * @example
 * ```ts
 * const gate = createInstallationClient({ baseUrl: "https://gate.example.com" });
 * const { offsetMs } = await gate.serverTime();
 * console.log(Math.abs(offsetMs) < 5_000, (await gate.readiness()).ready); // true true
 * ```
 */
import * as z from "zod/mini";
import { anonymous, type ConnectionOptions, createCaller, parseAnswer } from "./transport/http-call.ts";
import { ProblemError, UnexpectedAnswerError } from "./transport/errors.ts";

const time = z.object({ unixMs: z.number(), authorities: z.optional(z.array(z.string())) });
const health = z.object({ version: z.string() });

/** What a client signs by. */
export type ServerTime = {
  /** The server's clock in milliseconds since 1970. */
  readonly unixMs: number;
  /** How far the own clock is behind it (negative: ahead), to half a round trip. */
  readonly offsetMs: number;
  readonly roundTripMs: number;
  /** The hosts that a proof may name, as the server is called; undefined where it does not say. */
  readonly authorities?: readonly string[];
};

/** What any caller may ask. */
export type InstallationClient = {
  /** The server's clock, and the hosts that it is called by. */
  serverTime(): Promise<ServerTime>;
  /** Resolves when it is alive; `version` is the server's, null where it does not say. */
  health(): Promise<{ version: string | null }>;
  /** Whether it can serve requests at the moment; `document` is what it says of its dependencies, null when it says nothing. */
  readiness(): Promise<{ ready: boolean; document: unknown }>;
};

/** @throws TypeError when the base URL is none */
export function createInstallationClient(options: ConnectionOptions): InstallationClient {
  const caller = createCaller(options);
  const now = options.now ?? Date.now;
  return {
    async serverTime() {
      const sentAtMs = now();
      const { json } = await caller.call({ method: "GET", path: "/v1/time" }, anonymous);
      const { unixMs, authorities } = parseAnswer(time, json);
      const arrivedAtMs = now();
      return {
        unixMs,
        offsetMs: Math.round(unixMs - (sentAtMs + arrivedAtMs) / 2),
        roundTripMs: arrivedAtMs - sentAtMs,
        ...(authorities === undefined ? {} : { authorities }),
      };
    },
    async health() {
      const { json } = await caller.call({ method: "GET", path: "/health" }, anonymous);
      const said = health.safeParse(json);
      return { version: said.success ? said.data.version : null };
    },
    async readiness() {
      try {
        return { ready: true, document: (await caller.call({ method: "GET", path: "/ready" }, anonymous)).json };
      } catch (error) {
        // A refusal may come as a problem or as the list of dependencies with their states.
        if (error instanceof ProblemError && error.status === 503) return { ready: false, document: null };
        if (error instanceof UnexpectedAnswerError && error.status === 503)
          return { ready: false, document: error.json ?? null };
        throw error;
      }
    },
  };
}
