/** An agent's credential, kept usable: the access token is refreshed, the identity token reissued, each before its end. */
import * as z from "zod/mini";
import { decodeUnverifiedJws } from "../wire/jws.ts";
import { ACCESS_HEADER } from "../wire/registry-documents.ts";
import { type Authorize, type Caller, parseAnswer } from "./caller.ts";
import { CredentialExpiredError, ProblemError, UnexpectedAnswerError, UnreachableError } from "./errors.ts";
import type { Keys } from "./keys.ts";
import { proofHeaders } from "./signing.ts";

/** What registration gives an agent, and what changes over time. All of it is secret but the DID. */
export type AgentCredential = {
  readonly agentDid: string;
  /** The identity token, a compact JWS. */
  readonly ait: string;
  readonly access: { readonly token: string; readonly expiresAtMs: number };
  readonly refreshToken: string;
};

/** Told whenever the credential has changed: store it before this resolves, for the old refresh token is used up. */
export type OnCredential = (credential: AgentCredential) => void | Promise<void>;

export type CredentialKeeper = {
  /** The credential as it is now. */
  readonly current: () => AgentCredential;
  /** Headers for any call of the agent; refreshes and reissues first where that is due. */
  readonly authorize: Authorize;
  /** Renews the access token, unless somebody else has done so since `usedToken` was sent. */
  refresh(usedToken: string): Promise<void>;
  /** Reissues the identity token when its end is near. @throws CredentialExpiredError when it has passed. */
  renewIdentity(): Promise<void>;
  /** Renews the identity token now. */
  reissue(): Promise<void>;
  /** Whether the identity token has not expired. */
  readonly isAlive: () => boolean;
};

const ACCESS_MARGIN_MS = 60_000;
const IDENTITY_MARGIN_MAX_MS = 86_400_000;
/** The share of an identity token's life in which it is renewed. */
const IDENTITY_MARGIN_RATIO = 0.2;
/** How long a failed reissue is left alone while the old token is still good. */
const REISSUE_PAUSE_MS = 60_000;

const refreshed = z.object({
  access: z.object({ token: z.string(), expiresAtMs: z.number() }),
  refreshToken: z.string(),
});
const reissued = z.object({ ait: z.string() });
const lifetime = z.object({ iat: z.number(), exp: z.number() });

/**
 * @param ait a compact JWS
 * @returns when it was issued and when it ends, in milliseconds; unverified
 * @throws UnexpectedAnswerError when it is no identity token
 */
export function aitLifetime(ait: string): { issuedAtMs: number; expiresAtMs: number } {
  const jws = decodeUnverifiedJws(ait);
  const claims = jws.ok ? lifetime.safeParse(jws.value.claims) : null;
  if (claims?.success !== true) throw new UnexpectedAnswerError("the identity token is none", null);
  return { issuedAtMs: claims.data.iat * 1_000, expiresAtMs: claims.data.exp * 1_000 };
}

export function createCredentialKeeper(
  caller: Caller,
  keys: Keys,
  initial: AgentCredential,
  onCredential: OnCredential | undefined,
): CredentialKeeper {
  let credential = initial;
  let life = aitLifetime(initial.ait);
  let refreshing: Promise<void> | null = null;
  let reissuing: Promise<void> | null = null;
  let reissueNotBeforeMs = 0;

  const nowMs = caller.clock.nowMs;

  const authorizeByIdentity: Authorize = async (parts) => ({
    Authorization: `Claw ${credential.ait}`,
    ...(await proofHeaders(keys, parts, nowMs())),
  });

  const take = async (change: Partial<AgentCredential>): Promise<void> => {
    credential = { ...credential, ...change };
    life = aitLifetime(credential.ait);
    await onCredential?.(credential);
  };

  const refreshNow = async (): Promise<void> => {
    const body = JSON.stringify({ refreshToken: credential.refreshToken });
    const attempt = () => caller.call({ method: "POST", path: "/v1/agents/auth/refresh", body }, authorizeByIdentity);
    let answer;
    try {
      answer = await attempt();
    } catch (error) {
      // The answer may be lost and the token used up: the server answers the same key once more for 60 s.
      if (!(error instanceof UnreachableError)) throw error;
      answer = await attempt();
    }
    await take(parseAnswer(refreshed, answer.json));
  };

  const reissueNow = async (): Promise<void> => {
    const { json } = await caller.call({ method: "POST", path: "/v1/agents/reissue", body: "{}" }, authorizeByIdentity);
    await take(parseAnswer(reissued, json));
  };

  const isAlive = (): boolean => nowMs() < life.expiresAtMs;

  const keeper: CredentialKeeper = {
    current: () => credential,
    isAlive,

    async authorize(parts) {
      await keeper.renewIdentity();
      if (credential.access.expiresAtMs - ACCESS_MARGIN_MS <= nowMs()) await keeper.refresh(credential.access.token);
      return { [ACCESS_HEADER]: credential.access.token, ...(await authorizeByIdentity(parts)) };
    },

    async refresh(usedToken) {
      if (credential.access.token !== usedToken) return;
      refreshing ??= refreshNow().finally(() => {
        refreshing = null;
      });
      await refreshing;
    },

    async renewIdentity() {
      const marginMs = Math.min(IDENTITY_MARGIN_MAX_MS, (life.expiresAtMs - life.issuedAtMs) * IDENTITY_MARGIN_RATIO);
      if (nowMs() < life.expiresAtMs - marginMs) return;
      if (!isAlive()) {
        throw new CredentialExpiredError("the identity token has expired; ask the operator to re-key the agent");
      }
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
      reissuing ??= reissueNow().finally(() => {
        reissuing = null;
      });
      await reissuing;
    },
  };
  return keeper;
}
