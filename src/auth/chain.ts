/**
 * The chain: token → revocation → proof → replay → trust → access, and then the gate, which decides last in the one hop
 * that is made anyway. First the form of everything the caller sent is read, then the body, and only then is anything
 * fetched. Here alone a refusal becomes an error for the wire.
 */
import { ROOT } from "../authority/operator.ts";
import type { Registry, RegistryFetch, RequestScope } from "../registry/registry.ts";
import { discardBody } from "../resilience/bounded-body.ts";
import { type Deadline, startDeadline } from "../resilience/deadline.ts";
import type { Log } from "../telemetry/log.ts";
import type { LogLimit } from "../telemetry/log-limit.ts";
import { spansOfRequest } from "../telemetry/span.ts";
import type { ProxyError } from "../wire/problem.ts";
import { sha256Base64Url } from "../wire/proof.ts";
import { err, ok, type Result } from "../wire/result.ts";
import type { AssertionVerifier } from "./access-assertion.ts";
import { checkAccess } from "./access.ts";
import { type HeldBody, readRequestBody } from "./body.ts";
import type { BodyBudget } from "./limits/body-budget.ts";
import { type CredentialForm, isOperatorKey, type OperatorTokens, sealCredential } from "./credential.ts";
import { closeDecision, type Decision, openDecision } from "./decision.ts";
import { type AgentForm, readForm, type RouteNeeds } from "./form.ts";
import { checkBodyHash, checkProof, type ProvenRequest } from "./proof.ts";
import type { Passed, PassedAgent } from "./passed.ts";
import { type Refusal, refusal, refusalError, type Stage } from "./reasons.ts";
import type { RefusalMemory } from "./limits/refusal-memory.ts";
import { checkReplay, type ReplayMemory } from "./replay.ts";
import { checkRevocation } from "./revocation.ts";
import { checkToken, type TokenMemory, type VerifiedAit } from "./token.ts";
import { forgetSend, judgeSend, type TrustStage } from "./trust.ts";

export type ChainSettings = {
  readonly registryIssuer: string;
  readonly registryAuthority: string;
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
  readonly refusals: RefusalMemory;
  /** The budget for bodies of callers who are not known yet. */
  readonly bodies: BodyBudget;
  readonly trust: TrustStage;
  readonly operators: OperatorTokens;
  /** Null where no assertion of Cloudflare Access counts. */
  readonly assertions: AssertionVerifier | null;
  /** For refusals that a caller can cause at will. */
  readonly logLimit: LogLimit;
};

/** What one request brings along. */
export type ChainScope = {
  readonly now: () => number;
  /** The caller's, as limits count it; null where the platform gives none. */
  readonly address: string | null;
  readonly log: Log;
  /** `ctx.waitUntil`. */
  readonly background: (work: Promise<unknown>) => void;
  /** Called with the decision once it is closed, to be counted. */
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
   * Closes the decision with the gate's answer: logs it once, remembers the nonce that the gate took, and gives back the
   * body's share.
   *
   * @param refused null when the gate accepted
   * @returns the error that the wire gets of a refusal
   */
  conclude(passed: Passed, refused: Refusal | null, scope: ChainScope): ProxyError | null;
};

/** What one request brings to the stages. */
type Walk = {
  readonly form: AgentForm;
  readonly body: Uint8Array;
  readonly decision: Decision;
};

/** Runs a stage, noting in the decision how long it took. */
type Timed = <T>(stage: Stage, run: () => Promise<T>) => Promise<T>;

/** @returns the chain over what one isolate remembers; nothing of a request is kept */
export function createChain(deps: ChainDeps): Chain {
  const { settings, replays, trust } = deps;
  const formSettings = { ...settings, takesAssertions: deps.assertions !== null };

  async function decide(
    request: Request,
    needs: RouteNeeds,
    decision: Decision,
    scope: ChainScope,
  ): Promise<Result<Passed, Refusal>> {
    const proven = provenRequest(request, settings.publicAuthorities);
    const form = readForm(proven, needs, { tokens: deps.tokens, settings: formSettings, nowMs: scope.now() }, decision);
    if (!form.ok) return form;
    const held = await readRequestBody(request, { address: scope.address, budget: deps.bodies, now: scope.now });
    decision.durationsMs.body = scope.now() - decision.startedAtMs;
    if (!held.ok) return held;
    const passed =
      form.value.kind === "agent"
        ? await walkInTime({ form: form.value, body: held.value.bytes, decision }, scope)
        : await admit(deps, form.value, held.value, decision, scope.now());
    // Who has proved who it is answers for its bytes by its own rate; others do so until the gate knows them.
    if (!passed.ok || passed.value.kind !== "credential") held.value.share.release();
    return passed;
  }

  /** The chain's own time begins when the caller has said everything: a slow caller uses up its own time, not this. */
  async function walkInTime(walk: Walk, scope: ChainScope): Promise<Result<Passed, Refusal>> {
    const deadline = startDeadline(settings.authDeadlineMs, scope.now);
    try {
      return await walkStages(deps, walk, registryScope(scope, deadline));
    } finally {
      deadline.end();
    }
  }

  /** What a stage may use of this request; the deadline's timer starts only when somebody waits. */
  function registryScope({ now, log, background }: ChainScope, deadline: Deadline): RequestScope {
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
    const { skewWarnSeconds } = settings;
    closeDecision(decision, refused, { nowMs: scope.now(), log: scope.log, skewWarnSeconds, limit: deps.logLimit });
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
      forgetSend(trust, passed.principal.agentDid, passed.trust);
      const deadline = startDeadline(settings.authDeadlineMs, scope.now);
      const within = registryScope(scope, deadline);
      const judged = await judgeSend(trust, passed.principal.agentDid, passed.trust, within, { fresh: true });
      deadline.end();
      if (judged.ok) return ok({ ...passed, trust: judged.value.trust });
      close(passed.decision, judged.error, scope);
      return err(refusalError(judged.error));
    },

    conclude(passed, refused, scope) {
      if (passed.kind === "credential") passed.bodyShare.release();
      if (passed.kind === "agent") {
        const { keyX, nonce } = passed.proof;
        if (refused === null || refused.reason === "gate-nonce-replayed") replays.remember(keyX, nonce, scope.now());
        if (refused?.reason === "gate-peer-fenced" && passed.trust !== null) {
          forgetSend(trust, passed.principal.agentDid, passed.trust);
        }
      }
      close(passed.decision, refused, scope);
      return refused === null ? null : refusalError(refused);
    },
  };
}

/** The stages in walking order, for an agent's request. */
async function walkStages(deps: ChainDeps, walk: Walk, scope: RequestScope): Promise<Result<Passed, Refusal>> {
  const { form, body, decision } = walk;
  const timed = timing(decision, scope.now);

  const stageOne = { keys: deps.registry.keys, tokens: deps.tokens, issuer: deps.settings.registryIssuer };
  const token = await timed("token", () => checkToken(form.ait, form.token, stageOne, scope));
  if (!token.ok) return token;
  Object.assign(decision.caches, token.value.caches);
  const { ait } = token.value;

  const revocation = await timed("revocation", () => checkRevocation(ait, deps.registry.crl, scope));
  if (!revocation.ok) return revocation;
  decision.caches.crl = revocation.value.cache;

  const { sub: agentDid, ownerDid, jti, exp, cnf } = ait.claims;
  const keyX = cnf.jwk.x;
  const bodySha256 = await sha256Base64Url(body);
  const hashed = checkBodyHash(form.proof, bodySha256);
  if (!hashed.ok) return hashed;
  const proven = await timed("proof", () => checkProof(form.proof, keyX, ait.proofKey));
  if (!proven.ok) return proven;

  const { nonce, timestampMs, skewMs } = form.proof;
  const replay = checkReplay(deps.replays, keyX, nonce, scope.now());
  if (!replay.ok) return replay;

  // What follows may cost a read of the store or a call of the registry, and burns no nonce when it refuses.
  const refusedBefore = deps.refusals.recall(keyX, nonce, scope.now());
  if (refusedBefore !== null) return err(refusedBefore);
  const admitted = await checkTrustAndAccess(deps, ait, form, decision, scope, timed);
  if (!admitted.ok) {
    if (isCallersDoing(admitted.error)) deps.refusals.remember(keyX, nonce, admitted.error, scope.now());
    return admitted;
  }

  return ok({
    kind: "agent",
    principal: { kind: "agent", agentDid, ownerDid, jti, expMs: exp * 1_000, keyX, name: ait.claims.name },
    proof: { keyX, nonce, timestampMs, skewMs },
    ...admitted.value,
    body,
    bodySha256,
    decision,
  });
}

/** Stages 5 and 6: may this sender send to this recipient, and is its access token good; each where the route asks for it. */
async function checkTrustAndAccess(
  deps: ChainDeps,
  ait: VerifiedAit,
  form: AgentForm,
  decision: Decision,
  scope: RequestScope,
  timed: Timed,
): Promise<Result<Pick<PassedAgent, "trust" | "access">, Refusal>> {
  let trust: PassedAgent["trust"] = null;
  const { addressee } = form;
  if (addressee !== null) {
    const judged = await timed("trust", () => judgeSend(deps.trust, ait.claims.sub, addressee, scope));
    if (!judged.ok) return judged;
    decision.caches.trust = judged.value.cache;
    ({ trust } = judged.value);
  }
  if (form.access === null) return ok({ trust, access: null });
  const accessToken = form.access;
  const checked = await timed("access", () => checkAccess(ait, accessToken, deps.registry.access, scope));
  if (!checked.ok) return checked;
  decision.caches.access = checked.value.cache;
  return ok({ trust, access: checked.value.verdict });
}

/** A refusal that the caller has earned, and not one because somebody could not be asked. */
function isCallersDoing({ reason }: Refusal): boolean {
  return reason === "peer-not-trusted" || reason === "group-not-trusted" || reason === "access-invalid";
}

/** Devices, shared secrets, keys: sealed here, decided in the gate or by their rows. The operator's token: decided here. */
async function admit(
  deps: ChainDeps,
  form: CredentialForm,
  held: HeldBody,
  decision: Decision,
  nowMs: number,
): Promise<Result<Passed, Refusal>> {
  const { bytes: body, share: bodyShare } = held;
  if (form.kind === "access") {
    const vouched = await deps.assertions?.verify(form.assertion, nowMs);
    if (vouched === undefined) return err(refusal("access-assertion-invalid"));
    return vouched.ok ? ok({ kind: "operator", principal: vouched.value, body, decision }) : vouched;
  }
  if (form.kind === "operator") {
    if (await deps.operators.matches(form.secret)) return ok({ kind: "operator", principal: ROOT, body, decision });
    if (!isOperatorKey(form.secret)) return err(refusal("operator-token-wrong"));
  }
  if (form.kind === "device") {
    const hashed = checkBodyHash(form.proof, await sha256Base64Url(body));
    if (!hashed.ok) return hashed;
  }
  return ok({ kind: "credential", credential: await sealCredential(form), body, bodyShare, decision });
}

function timing(decision: Decision, now: () => number): Timed {
  const within = spansOfRequest();
  return async (stage, run) => {
    const startedAtMs = now();
    try {
      return await within(`auth.${stage}`, run);
    } finally {
      decision.durationsMs[stage] = now() - startedAtMs;
    }
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
