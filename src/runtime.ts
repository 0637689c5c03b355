/**
 * What one isolate holds beyond a request: settings, bounded caches, breakers and the dispatcher. Made once, from the
 * bindings; nothing of a request is kept here.
 */
import { cleanUpAfterCall, noteEndedAgent } from "./apikeys/cleanup.ts";
import { apiKeyMethods } from "./rpc/methods/apikeys.ts";
import { auditMethods } from "./rpc/methods/audit.ts";
import { createAssertionVerifier } from "./auth/access-assertion.ts";
import { type Chain, createChain } from "./auth/chain.ts";
import { createOperatorTokens } from "./auth/credential.ts";
import { type BodyBudget, createBodyBudget } from "./auth/limits/body-budget.ts";
import { createRefusalMemory } from "./auth/limits/refusal-memory.ts";
import { createRateWindow, type RateWindow } from "./auth/limits/rate-window.ts";
import { createSecretLooks, type SecretLooks } from "./auth/limits/secret-looks.ts";
import { createReplayMemory, nonceAgeMs } from "./auth/replay.ts";
import { createTokenMemory } from "./auth/token.ts";
import { createTrustStage, type TrustStage } from "./auth/trust.ts";
import { authzMethods } from "./rpc/methods/authz.ts";
import { agentRegistration } from "./authz/registration.ts";
import { type Config, parseConfig, type SettingProblem } from "./config.ts";
import { deliveryMethods } from "./rpc/methods/deliveries.ts";
import { createLockout, type Lockout } from "./auth/limits/lockout.ts";
import { embeddedRegistryFetch } from "./identity/documents/documents.ts";
import { groupMethods } from "./rpc/methods/groups.ts";
import { identityMethods } from "./rpc/methods/identity.ts";
import { inviteMethods } from "./rpc/methods/invites.ts";
import type { IdentityHooks } from "./identity/hooks.ts";
import { createRegistry, externalRegistry, type Registry, type RequestScope } from "./registry/registry.ts";
import type { Deadline } from "./resilience/deadline.ts";
import { deviceMethods } from "./rpc/methods/devices.ts";
import { createDispatcher, type Dispatcher } from "./rpc/dispatcher.ts";
import { countCall, countTransition } from "./telemetry/dependency-metrics.ts";
import { createLog, type Log } from "./telemetry/log.ts";
import { createLogLimit, type LogLimit } from "./telemetry/log-limit.ts";
import { operatorMethods } from "./rpc/methods/operators.ts";
import { profileMethods } from "./rpc/methods/profiles.ts";
import { taskMethods } from "./rpc/methods/tasks.ts";
import { trustMethods } from "./rpc/methods/trust.ts";
import { createKnownAgents, type KnownAgents } from "./identity/known-agents.ts";
import { leaveAllStatements, lookUpMembership } from "./trust/groups/rows.ts";
import { lookUpTrust } from "./trust/pairs.ts";
import { endTicketsStatement } from "./trust/ticket-store.ts";

export type Runtime = {
  readonly config: Config;
  readonly registry: Registry;
  /** What a request, or housekeeping, lends to the registry's client. */
  readonly registryScope: (lease: RegistryLease) => RequestScope;
  readonly trust: TrustStage;
  readonly chain: Chain;
  readonly dispatcher: Dispatcher;
  /** Guesses at bearer tokens, by address. */
  readonly lockout: Lockout;
  /** Guesses at secrets of agents that do not exist, by agent and address, as the gates of those that do count them. */
  readonly unknownAgentGuesses: Lockout;
  readonly knownAgents: KnownAgents;
  /** How often an agent's sends may cost the parsing of a body. */
  readonly sends: RateWindow;
  /** How often a secret without a proof may cost a read. */
  readonly looks: SecretLooks;
  /** The budget for bodies of callers who are not known yet. */
  readonly bodies: BodyBudget;
  /** For what a caller can cause at will: one line a minute. */
  readonly logLimit: LogLimit;
};

/** What belongs to one request, or one round of housekeeping. */
export type RegistryLease = {
  readonly now: () => number;
  readonly background: (work: Promise<unknown>) => void;
  readonly log: Log;
  readonly deadline: Deadline;
};

/** A setting that cannot be used: nothing runs as a guess. The message names settings and never a value. */
export class BadSettings extends Error {
  override readonly name = "BadSettings";
  readonly problems: readonly SettingProblem[];

  constructor(problems: readonly SettingProblem[]) {
    super(problems.map(({ setting, problem }) => `${setting} ${problem}`).join("; "));
    this.problems = problems;
  }
}

/** One isolate has one environment; tests may have several. */
const runtimes = new WeakMap<Env, Runtime>();

/** @throws BadSettings */
export function runtimeOf(env: Env): Runtime {
  const known = runtimes.get(env);
  if (known !== undefined) return known;
  const runtime = createRuntime(env);
  runtimes.set(env, runtime);
  return runtime;
}

function createRuntime(env: Env): Runtime {
  const parsed = parseConfig(env as unknown as Record<string, unknown>);
  if (!parsed.ok) throw new BadSettings(parsed.error);
  const config = parsed.value;
  const log = createLog();
  const db = env.DB;

  const counted = { onTransition: countTransition, onCall: countCall };
  const registry = createRegistry({ settings: config, log, ...counted });
  const registryFetch =
    config.registryUrl === "embedded"
      ? embeddedRegistryFetch({ db, config, now: Date.now })
      : externalRegistry(config.registryUrl);
  const registryScope = ({ now, background, log: requestLog, deadline }: RegistryLease): RequestScope => ({
    now,
    background,
    log: requestLog,
    fetch: registryFetch,
    kv: env.CACHE,
    // Read only by a call that waits, so that what is served from memory needs no timer.
    get signal() {
      return deadline.signal;
    },
  });
  const trust = createTrustStage({
    settings: config,
    lookUp: (a, b) => lookUpTrust(db, a, b),
    lookUpGroup: (groupId) => lookUpMembership(db, groupId),
    log,
    ...counted,
  });
  const bodies = createBodyBudget();
  const logLimit = createLogLimit();
  const chain = createChain({
    settings: config,
    registry,
    registryFetch,
    kv: env.CACHE,
    tokens: createTokenMemory(),
    replays: createReplayMemory(nonceAgeMs(config.skewMaxSeconds)),
    refusals: createRefusalMemory(config.rateLimitPerAgent),
    bodies,
    trust,
    operators: createOperatorTokens(config.operatorTokens),
    assertions: config.access === null ? null : createAssertionVerifier(config.access),
    logLimit,
  });
  const lockout = createLockout();
  return {
    config,
    registry,
    registryScope,
    trust,
    chain,
    dispatcher: createMethods(registry),
    lockout,
    unknownAgentGuesses: createLockout(),
    knownAgents: createKnownAgents(config),
    sends: createRateWindow(2 * config.rateLimitPerAgent),
    looks: createSecretLooks(lockout, 2 * config.rateLimitPerAgent),
    bodies,
    logLimit,
  };
}

/** Every method that can be called, and what folders commit with one another. */
function createMethods(registry: Registry): Dispatcher {
  const identityHooks: IdentityHooks = {
    keysChanged: () => registry.keys.expectChange(),
    atRegistration: [agentRegistration],
    atEnd: [
      (_ctx, agentDid) => [endTicketsStatement(agentDid)],
      (_ctx, agentDid, cause) => (cause === "revoked" ? leaveAllStatements(agentDid) : []),
      (ctx, agentDid) => [noteEndedAgent(agentDid, ctx.now())],
    ],
    afterEnd: [cleanUpAfterCall],
  };
  return createDispatcher([
    ...identityMethods(identityHooks),
    ...inviteMethods(identityHooks),
    ...trustMethods,
    ...profileMethods,
    ...groupMethods,
    ...deliveryMethods,
    ...deviceMethods,
    ...taskMethods,
    ...apiKeyMethods,
    ...authzMethods,
    ...operatorMethods,
    ...auditMethods,
  ]);
}
