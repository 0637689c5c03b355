/**
 * The chain: token → revocation → proof → replay → trust → access, and then the gate, which decides last in the one hop
 * that is made anyway. First the form of everything the caller sent is read, then the body, and only then is anything
 * fetched. Here alone a refusal becomes an error for the wire.
 */
import type { Principal } from "../authority/principal.ts";
import type { Registry, RegistryFetch, RequestScope } from "../registry/registry.ts";
import { type Deadline, startDeadline } from "../resilience/deadline.ts";
import type { Log } from "../telemetry/log.ts";
import { spansOfRequest } from "../telemetry/span.ts";
import type { AgentDid } from "../wire/did.ts";
import type { ProxyError } from "../wire/problem.ts";
import { sha256Base64Url } from "../wire/proof.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type AccessVerdict, checkAccess } from "./access.ts";
import { checkAnnouncedLength, discardBody, readAnnouncedBody, readBody } from "./body.ts";
import { type Credential, type CredentialForm, type OperatorTokens, sealCredential } from "./credential.ts";
import { closeDecision, type Decision, openDecision } from "./decision.ts";
import { type AgentForm, readForm, type RouteNeeds } from "./form.ts";
import { checkBodyHash, checkProof, type ProvenRequest } from "./proof.ts";
import { type Refusal, refusal, refusalError, type Stage } from "./reasons.ts";
import { checkReplay, type ReplayMemory } from "./replay.ts";
import { checkRevocation } from "./revocation.ts";
import { checkToken, type TokenMemory } from "./token.ts";
import type { TrustStage } from "./trust.ts";

export type AgentPrincipal = Extract<Principal, { kind: "agent" }>;

/** A request that passed; what is left to decide is the gate's. */
export type Passed =
  | {
      readonly kind: "agent";
      readonly principal: AgentPrincipal;
      /** The nonce that the gate takes, unique per key. */
      readonly proof: {
        readonly keyX: string;
        readonly nonce: string;
        readonly timestampMs: number;
        readonly skewMs: number;
      };
      /** The trust epoch that a send was judged by; null where the route names no recipient. */
      readonly trust: { readonly recipientDid: AgentDid; readonly epoch: number } | null;
      /** Null where the route needs no access token. */
      readonly access: AccessVerdict | null;
      readonly body: Uint8Array;
      readonly bodySha256: string;
      readonly decision: Decision;
    }
  | {
      readonly kind: "credential";
      readonly credential: Credential;
      readonly body: Uint8Array;
      readonly decision: Decision;
    }
  | {
      readonly kind: "operator";
      readonly principal: { readonly kind: "operator" };
      readonly body: Uint8Array;
      readonly decision: Decision;
    };

export type PassedAgent = Extract<Passed, { kind: "agent" }>;

export type ChainSettings = {
  readonly registryIssuer: string;
  readonly authDeadlineMs: number;
  readonly skewMaxSeconds: number;
  readonly skewWarnSeconds: number;
  readonly proofV1: "accept" | "refuse";
  /** Hosts that a V2 proof may name beside the one the Worker was called by. */
  readonly publicAuthorities: readonly string[];
};

/** What the chain asks of the registry's client. */
export type RegistryReader = {
  readonly keys: Pick<Registry["keys"], "find" | "isActive">;
  readonly crl: Pick<Registry["crl"], "isRevoked">;
  readonly access: Pick<Registry["access"], "validate">;
};

export type ChainDeps = {
  readonly settings: ChainSettings;
  readonly registry: RegistryReader;
  /** How the registry is reached. */
  readonly registryFetch: RegistryFetch;
  /** The second level of the registry's caches; null where none is bound. */
  readonly kv: KVNamespace | null;
  readonly tokens: TokenMemory;
  readonly replays: ReplayMemory;
  readonly trust: TrustStage;
  readonly operators: OperatorTokens;
};

/** What one request brings along. */
export type ChainScope = {
  readonly now: () => number;
  readonly log: Log;
  /** `ctx.waitUntil`. */
  readonly background: (work: Promise<unknown>) => void;
  /** Told the decision once it is closed, to be counted. */
  readonly decided?: (decision: Decision) => void;
};

export type Chain = {
  /**
   * Decides everything that can be decided before the gate. A refusal has been logged, and its body discarded.
   */
  authenticate(request: Request, needs: RouteNeeds, scope: ChainScope): Promise<Result<Passed, ProxyError>>;
  /**
   * Judges a send's trust once more, at the store: for a gate that has said `gate-peer-fenced`, since the pairing may be
   * newer than what was remembered. A refusal has been logged.
   */
  rejudgeTrust(passed: PassedAgent, scope: ChainScope): Promise<Result<PassedAgent, ProxyError>>;
  /**
   * Closes the decision with the gate's answer: logs it once and remembers the nonce that the gate took.
   *
   * @param refused null when the gate accepted
   * @returns what the wire is told of a refusal
   */
  conclude(passed: Passed, refused: Refusal | null, scope: ChainScope): ProxyError | null;
};

export function createChain(deps: ChainDeps): Chain {
  const { settings, registry, tokens, replays, trust } = deps;
  const stageOne = { keys: registry.keys, tokens, issuer: settings.registryIssuer };

  /** The stages in walking order. */
  async function walk(
    form: AgentForm,
    body: Uint8Array,
    decision: Decision,
    scope: RequestScope,
  ): Promise<Result<Passed, Refusal>> {
    const within = spansOfRequest();
    const timed = async <T>(stage: Stage, run: () => Promise<T>): Promise<T> => {
      const startedAtMs = scope.now();
      try {
        return await within(`auth.${stage}`, run);
      } finally {
        decision.durationsMs[stage] = scope.now() - startedAtMs;
      }
    };

    const token = await timed("token", () => checkToken(form.ait, form.token, stageOne, scope));
    if (!token.ok) return token;
    Object.assign(decision.caches, token.value.caches);
    const { ait } = token.value;
    const { claims, proofKey } = ait;
    const keyX = claims.cnf.jwk.x;

    const revocation = await timed("revocation", () => checkRevocation(ait, registry.crl, scope));
    if (!revocation.ok) return revocation;
    decision.caches.crl = revocation.value.cache;

    const { proof } = form;
    const bodySha256 = await sha256Base64Url(body);
    const hashed = checkBodyHash(proof, bodySha256);
    if (!hashed.ok) return hashed;
    const proven = await timed("proof", () => checkProof(proof, keyX, proofKey));
    if (!proven.ok) return proven;

    const replay = checkReplay(replays, keyX, proof.nonce);
    if (!replay.ok) return replay;

    let trusted: { recipientDid: AgentDid; epoch: number } | null = null;
    const { recipientDid } = form;
    if (recipientDid !== null) {
      const judged = await timed("trust", () => trust.judge(claims.sub, recipientDid, scope));
      if (!judged.ok) return judged;
      decision.caches.trust = judged.value.cache;
      trusted = { recipientDid, epoch: judged.value.epoch };
    }

    let access: AccessVerdict | null = null;
    const accessToken = form.access;
    if (accessToken !== null) {
      const checked = await timed("access", () => checkAccess(ait, accessToken, registry.access, scope));
      if (!checked.ok) return checked;
      decision.caches.access = checked.value.cache;
      access = checked.value.verdict;
    }

    const { sub: agentDid, ownerDid, jti, exp } = claims;
    const { nonce, timestampMs, skewMs } = proof;
    return ok({
      kind: "agent",
      principal: { kind: "agent", agentDid, ownerDid, jti, expMs: exp * 1_000, keyX },
      proof: { keyX, nonce, timestampMs, skewMs },
      trust: trusted,
      access,
      body,
      bodySha256,
      decision,
    });
  }

  /** Devices, shared secrets, API keys: sealed here, decided in the gate. The operator: decided here. */
  async function admit(form: CredentialForm, body: Uint8Array, decision: Decision): Promise<Result<Passed, Refusal>> {
    if (form.kind === "operator") {
      if (!(await deps.operators.matches(form.secret))) return err(refusal("operator-token-wrong"));
      return ok({ kind: "operator", principal: { kind: "operator" }, body, decision });
    }
    if (form.kind === "device") {
      const hashed = checkBodyHash(form.proof, await sha256Base64Url(body));
      if (!hashed.ok) return hashed;
    }
    return ok({ kind: "credential", credential: await sealCredential(form), body, decision });
  }

  async function decide(
    request: Request,
    needs: RouteNeeds,
    decision: Decision,
    scope: ChainScope,
  ): Promise<Result<Passed, Refusal>> {
    const form = readForm(
      provenRequest(request, settings.publicAuthorities),
      needs,
      { tokens, settings, nowMs: scope.now() },
      decision,
    );
    if (!form.ok) return form;
    const announced = checkAnnouncedLength(request.headers);
    if (!announced.ok) return announced;
    const body = announced.value === null ? await readBody(request.body) : await readAnnouncedBody(request);
    decision.durationsMs.body = scope.now() - decision.startedAtMs;
    if (!body.ok) return body;
    if (form.value.kind !== "agent") return admit(form.value, body.value, decision);
    // The chain's own time begins when the caller has said everything: a slow caller uses up its own time, not this.
    const deadline = startDeadline(settings.authDeadlineMs, scope.now);
    try {
      return await walk(form.value, body.value, decision, requestScope(scope, deadline));
    } finally {
      deadline.end();
    }
  }

  /** What a stage may use of this request; the deadline's timer starts only when somebody waits. */
  function requestScope({ now, log, background }: ChainScope, deadline: Deadline): RequestScope {
    return {
      now,
      log,
      background,
      fetch: deps.registryFetch,
      kv: deps.kv,
      get signal() {
        return deadline.signal;
      },
    };
  }

  function close(decision: Decision, refused: Refusal | null, scope: ChainScope): void {
    closeDecision(decision, refused, { nowMs: scope.now(), log: scope.log, skewWarnSeconds: settings.skewWarnSeconds });
    scope.decided?.(decision);
  }

  return {
    async authenticate(request, needs, scope) {
      const decision = openDecision(needs.route, scope.now());
      const decided = await decide(request, needs, decision, scope);
      if (decided.ok) {
        decision.passedAtMs = scope.now();
        return decided;
      }
      close(decision, decided.error, scope);
      await discardBody(request.body);
      return err(refusalError(decided.error));
    },

    async rejudgeTrust(passed, scope) {
      if (passed.trust === null) return ok(passed);
      const { recipientDid } = passed.trust;
      trust.forget(passed.principal.agentDid, recipientDid);
      const deadline = startDeadline(settings.authDeadlineMs, scope.now);
      const judged = await trust.judge(passed.principal.agentDid, recipientDid, requestScope(scope, deadline), {
        fresh: true,
      });
      deadline.end();
      if (judged.ok) return ok({ ...passed, trust: { recipientDid, epoch: judged.value.epoch } });
      close(passed.decision, judged.error, scope);
      return err(refusalError(judged.error));
    },

    conclude(passed, refused, scope) {
      if (passed.kind === "agent") {
        const { keyX, nonce } = passed.proof;
        if (refused === null || refused.reason === "gate-nonce-replayed") replays.remember(keyX, nonce);
        if (refused?.reason === "gate-peer-fenced" && passed.trust !== null) {
          trust.forget(passed.principal.agentDid, passed.trust.recipientDid);
        }
      }
      close(passed.decision, refused, scope);
      return refused === null ? null : refusalError(refused);
    },
  };
}

/**
 * What of a request a proof covers, cheaper than a parsed URL.
 *
 * @param publicAuthorities hosts that a V2 proof may name beside the one called
 */
export function provenRequest(request: Request, publicAuthorities: readonly string[]): ProvenRequest {
  const { url, method, headers } = request;
  const host = url.indexOf("//") + 2;
  const path = url.indexOf("/", host);
  return {
    method,
    headers,
    authorities: [path === -1 ? url.slice(host) : url.slice(host, path), ...publicAuthorities],
    pathWithQuery: path === -1 ? "/" : url.slice(path),
  };
}
