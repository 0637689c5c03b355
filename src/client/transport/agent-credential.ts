/**
 * An agent's credential, kept usable: the access token is refreshed, the identity token reissued, each before its end.
 *
 * @example
 * ```ts
 * let saved = credential; // wherever the processes of this agent can all read and write it
 * const store: CredentialStore = { update: async (renew) => (saved = await renew(saved)) };
 * const agent = createAgentClient({ baseUrl, keys, credential, store });
 * await agent.refresh();
 * console.log(saved.refreshToken === agent.credential().refreshToken); // true
 * ```
 */
import * as z from "zod/mini";
import { decodeUnverifiedJws } from "../../wire/jws.ts";
import { ACCESS_HEADER } from "../../wire/registry-documents.ts";
import { type Authorize, type Caller, parseAnswer } from "./http-call.ts";
import {
  ClockNotTrustedError,
  CredentialExpiredError,
  ProblemError,
  UnexpectedAnswerError,
  UnreachableError,
} from "./errors.ts";
import type { Keys } from "./keys.ts";
import { provenBy } from "./signing.ts";

/** What registration gives an agent, and what changes over time. All of it is secret but the DID. */
export type AgentCredential = {
  readonly agentDid: string;
  /** The identity token, a compact JWS. */
  readonly ait: string;
  readonly access: { readonly token: string; readonly expiresAtMs: number };
  readonly refreshToken: string;
};

/** Called whenever the credential has changed: store it before this resolves, for the old refresh token is used up. */
export type OnCredential = (credential: AgentCredential) => void | Promise<void>;

/**
 * Where a credential lives that several processes share. A refresh token works once, so they must not use the same one:
 * `update` reads what is stored now, lets `renew` work on it alone, stores what that gives, and resolves to it.
 */
export type CredentialStore = {
  update(renew: (stored: AgentCredential) => Promise<AgentCredential>): Promise<AgentCredential>;
};

/** @returns a store in memory, which passes every change on to `onCredential` */
export function memoryStore(initial: AgentCredential, onCredential: OnCredential | undefined): CredentialStore {
  let stored = initial;
  return {
    async update(renew) {
      const next = await renew(stored);
      if (next !== stored) {
        stored = next;
        await onCredential?.(next);
      }
      return next;
    },
  };
}

/** Keeps a credential usable. */
export type CredentialKeeper = {
  /** The credential as it is now. */
  readonly current: () => AgentCredential;
  /** Headers for any call of the agent; refreshes and reissues first where that is due. */
  readonly authorize: Authorize;
  /** Renews the access token, unless another call or process has done so since `usedToken` was sent. */
  refresh(usedToken: string): Promise<void>;
  /** Reissues the identity token when its end is near. @throws CredentialExpiredError when it has passed. */
  renewIdentity(): Promise<void>;
  /** Renews the identity token now. */
  reissue(): Promise<void>;
  /** Whether the identity token has not expired. */
  readonly isAlive: () => boolean;
  /**
   * For an identity token that the server refuses: whether it may be taken later, since it does not hold yet, or was issued
   * moments ago with a signing key that the server is about to fetch.
   *
   * @returns milliseconds until the next attempt, or null when waiting does not help
   */
  readonly retryAfterMs: () => number | null;
};

const ACCESS_MARGIN_MS = 60_000;
const IDENTITY_MARGIN_MAX_MS = 86_400_000;
/** The share of an identity token's life in which it is renewed. */
const IDENTITY_MARGIN_RATIO = 0.2;
/** A server asks for keys that it does not know once in 30 s; twice that, and the time on the way. */
const SETTLING_MS = 75_000;
const SETTLING_RETRY_MIN_MS = 1_000;
const SETTLING_RETRY_MAX_MS = 30_000;
/** How long a failed reissue is left alone while the old token is still good. */
const REISSUE_PAUSE_MS = 60_000;

const refreshed = z.object({
  access: z.object({ token: z.string(), expiresAtMs: z.number() }),
  refreshToken: z.string(),
});
const reissued = z.object({ ait: z.string() });
const lifetime = z.object({ iat: z.number(), nbf: z.optional(z.number()), exp: z.number() });

/** When an identity token was issued, from when it holds and when it ends, in milliseconds since 1970. */
export type AitLifetime = { readonly issuedAtMs: number; readonly notBeforeMs: number; readonly expiresAtMs: number };

/**
 * When an identity token begins and ends, as it says itself.
 *
 * @example
 * ```ts
 * const { notBeforeMs, expiresAtMs } = aitLifetime(credential.ait);
 * console.log(notBeforeMs <= Date.now(), expiresAtMs > Date.now()); // true true
 * ```
 *
 * @param ait a compact JWS
 * @returns its times, unverified
 * @throws UnexpectedAnswerError when it is no identity token
 */
export function aitLifetime(ait: string): AitLifetime {
  const jws = decodeUnverifiedJws(ait);
  const claims = jws.ok ? lifetime.safeParse(jws.value.claims) : null;
  if (claims?.success !== true) throw new UnexpectedAnswerError("the identity token is none", null);
  const { iat, nbf, exp } = claims.data;
  return { issuedAtMs: iat * 1_000, notBeforeMs: (nbf ?? iat) * 1_000, expiresAtMs: exp * 1_000 };
}

/**
 * @param caller what the calls go through
 * @param keys the keys that the identity token is bound to
 * @param initial the credential to begin with
 * @param store where it lives on
 */
export function createCredentialKeeper(
  caller: Caller,
  keys: Keys,
  initial: AgentCredential,
  store: CredentialStore,
): CredentialKeeper {
  let credential = initial;
  let life = aitLifetime(initial.ait);
  let refreshing: Promise<void> | null = null;
  let reissuing: Promise<void> | null = null;
  let lastRenewal: Promise<unknown> = Promise.resolve();
  let reissueNotBeforeMs = 0;

  const nowMs = caller.clock.nowMs;

  const identity =
    ({ ait }: AgentCredential, more: Readonly<Record<string, string>> = {}): Authorize =>
    (request) =>
      provenBy(keys, { Authorization: `Claw ${ait}`, ...more }, request, nowMs());

  // One renewal after the other: each builds on what the one before has stored.
  const renew = (work: (stored: AgentCredential) => Promise<AgentCredential>): Promise<void> => {
    const renewal = lastRenewal.then(async () => {
      credential = await store.update(work);
      life = aitLifetime(credential.ait);
    });
    // Its own caller gets a failure; for the next one it is only the end of the wait.
    lastRenewal = Promise.allSettled([renewal]);
    return renewal;
  };

  const requestRefresh = async (stored: AgentCredential): Promise<AgentCredential> => {
    const body = JSON.stringify({ refreshToken: stored.refreshToken });
    const attempt = () => caller.call({ method: "POST", path: "/v1/agents/auth/refresh", body }, identity(stored));
    let answer;
    try {
      answer = await attempt();
    } catch (error) {
      // The answer may be lost and the token used up: the server answers the same key once more for 60 s.
      if (!(error instanceof UnreachableError)) throw error;
      answer = await attempt();
    }
    return { ...stored, ...parseAnswer(refreshed, answer.json) };
  };

  const requestReissue = async (stored: AgentCredential): Promise<AgentCredential> => {
    const call = { method: "POST", path: "/v1/agents/reissue", body: "{}" } as const;
    const { json } = await caller.call(call, identity(stored));
    return { ...stored, ...parseAnswer(reissued, json) };
  };

  const isFresh = (access: AgentCredential["access"]): boolean => access.expiresAtMs - ACCESS_MARGIN_MS > nowMs();
  const refreshNow = (usedToken: string): Promise<void> =>
    renew((stored) => {
      // Another process that shares the store may have been faster.
      const isRenewed = stored.access.token !== usedToken && isFresh(stored.access);
      return isRenewed ? Promise.resolve(stored) : requestRefresh(stored);
    });
  const reissueNow = (usedAit: string): Promise<void> =>
    renew((stored) => (stored.ait === usedAit ? requestReissue(stored) : Promise.resolve(stored)));

  const isAlive = (): boolean => nowMs() < life.expiresAtMs;
  /** Whether the identity token is to be renewed. */
  const isDue = (): boolean => {
    const { issuedAtMs, expiresAtMs } = life;
    return (
      nowMs() >= expiresAtMs - Math.min(IDENTITY_MARGIN_MAX_MS, (expiresAtMs - issuedAtMs) * IDENTITY_MARGIN_RATIO)
    );
  };

  const keeper: CredentialKeeper = {
    current: () => credential,
    isAlive,

    retryAfterMs() {
      const fromMs = Math.max(life.issuedAtMs, life.notBeforeMs);
      const aheadMs = fromMs - nowMs();
      if (aheadMs < -SETTLING_MS) return null;
      return Math.min(SETTLING_RETRY_MAX_MS, Math.max(SETTLING_RETRY_MIN_MS, aheadMs));
    },

    async authorize(request) {
      await keeper.renewIdentity();
      if (!isFresh(credential.access)) await keeper.refresh(credential.access.token);
      const used = credential;
      return identity(used, { [ACCESS_HEADER]: used.access.token })(request);
    },

    async refresh(usedToken) {
      if (credential.access.token !== usedToken) return;
      refreshing ??= refreshNow(usedToken).finally(() => {
        refreshing = null;
      });
      await refreshing;
    },

    async renewIdentity() {
      if (!isDue()) return;
      if (!isAlive()) await renew((stored) => Promise.resolve(stored));
      // Before it counts as expired: it may be the own clock that is wrong.
      if (!isAlive()) await correctedClock(caller);
      if (!isAlive()) {
        throw new CredentialExpiredError("the identity token has expired; ask the operator to re-key the agent");
      }
      if (!isDue()) return;
      if (nowMs() < reissueNotBeforeMs) return;
      try {
        await keeper.reissue();
      } catch (error) {
        // The old token is still good: whatever it is for decides by its own answer, and the next call tries again.
        const isAnswer = error instanceof ProblemError || error instanceof UnexpectedAnswerError;
        if (isAnswer ? (error.status ?? 0) < 429 : !(error instanceof UnreachableError)) throw error;
        reissueNotBeforeMs = nowMs() + REISSUE_PAUSE_MS;
      }
    },

    async reissue() {
      reissuing ??= reissueNow(credential.ait).finally(() => {
        reissuing = null;
      });
      await reissuing;
    },
  };
  return keeper;
}

/** Takes over the server's time, where it can be believed. */
async function correctedClock(caller: Caller): Promise<void> {
  try {
    await caller.correctClock();
  } catch (error) {
    if (!(error instanceof ClockNotTrustedError)) throw error;
  }
}
