/** What a call may ask of the authority it runs under, and what it may ask to be ended. */
import type { FencingToken } from "../database/fencing.ts";
import type { Statement } from "../database/statement.ts";

/**
 * A caller's authority while a call runs. Stands directly before each durable effect and before each reply, because
 * every `await` is a place where a revocation may have happened.
 */
export type Authority = {
  /** @throws ProxyError when the authority has ended. */
  assertCurrent(): void;
  /** What every D1 batch under this authority is fenced by (`commitFenced`): it is undone when the authority has ended. */
  fence(): readonly FencingToken[];
  /** The caller has ended its own authority by this call: its answer still goes out, unless somebody ends what came of it. */
  revokedItself(epoch: number): void;
};

/** Which sockets and calls a revocation ended. */
export type Fenced = { sockets: number; inFlight: number };

export type EndAgent = {
  reason: string;
  /** Re-key: the one identity token that survives. */
  keepJti?: string;
  /** One D1 batch holding `raise`; returns the unexpired jtis that ended. */
  commit: (raise: readonly Statement<D1Result>[]) => Promise<{ jti: string; expMs: number }[]>;
};

/** Ends an authority: what is written in one turn, and what raises its fencing token in D1. */
export type EndAuthority<T> = {
  /** Synchronous: rows, epochs, audit. From its return on, nothing under the old authority is accepted. */
  apply: () => T;
  /** Fencing tokens to raise, by authority. */
  raise: (applied: T) => readonly FencingToken[];
  /** What else is committed with the tokens. */
  commitWith?: (applied: T) => readonly Statement<D1Result>[];
};
