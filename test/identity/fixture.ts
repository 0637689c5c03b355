/** A registry over the real D1, a gate that only counts epochs, and agents with real keys. */
import { env } from "cloudflare:workers";
import { ROOT } from "../../src/authority/operator.ts";
import type { Authority, EndAgent } from "../../src/authority/authority.ts";
import type { Principal } from "../../src/authority/principal.ts";
import type { CallContext } from "../../src/call/context.ts";
import type { GateLocal } from "../../src/call/gate.ts";
import { type Config, parseConfig } from "../../src/config.ts";
import { raiseStatements } from "../../src/database/fencing.ts";
import type { IdentityHooks } from "../../src/identity/hooks.ts";
import type { Credentials } from "../../src/identity/lifecycle/register.ts";
import { registryOf } from "../../src/identity/registry.ts";
import { identityMethods } from "../../src/rpc/methods/identity.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { type AgentDid, type HumanDid, parseAgentDid, parseHumanDid } from "../../src/wire/did.ts";
import { decodeUnverifiedJws } from "../../src/wire/jws.ts";
import { ProxyError } from "../../src/wire/problem.ts";
import { silentLog } from "../support/silent-log.ts";

export const NOW_MS = Date.UTC(2026, 10, 22, 12);
export const SECOND_MS = 1_000;
export const DAY_MS = 86_400_000;

const parsed = parseConfig(env as unknown as Record<string, unknown>);
if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
export const config: Config = parsed.value;

/** A clock that stands still until a test moves it. */
export const clock = {
  ms: NOW_MS,
  now: (): number => clock.ms,
};

export const noHooks: IdentityHooks = { atRegistration: [], atEnd: [] };

/** Epochs of the agents, as their gates hold them. */
const epochs = new Map<string, number>();

export type Surroundings = {
  db?: D1Database;
  config?: Config;
  gate?: GateLocal | null;
  agentDid?: AgentDid | null;
  principal?: Principal;
  authority?: Authority;
};

/** A call by the operator. */
export function operatorCall(around: Surroundings = {}): CallContext {
  return {
    env,
    config: around.config ?? config,
    db: around.db ?? env.DB,
    principal: around.principal ?? ROOT,
    authority: around.authority ?? { assertCurrent() {}, fence: () => [], revokedItself: () => {} },
    requestId: "req-test-0001",
    origin: "192.0.2.1",
    now: clock.now,
    log: silentLog,
    agentDid: around.agentDid ?? null,
    gates: {
      of: () => {
        throw new Error("no gate is called from here");
      },
    },
    gate: around.gate ?? null,
  };
}

/** The operator's call about one agent, in that agent's gate. */
export function operatorCallAbout(agentDid: string, around: Surroundings = {}): CallContext {
  return operatorCall({ ...around, agentDid: did(agentDid), gate: around.gate ?? gateStub(agentDid) });
}

/** A gate whose end raises the agent's epoch here and, in the commit, in D1. */
export function gateStub(agentDid: string, beforeCommit: () => Promise<void> = async () => {}): GateLocal {
  const gate: Pick<GateLocal, "endAgent"> = {
    async endAgent(end: EndAgent) {
      const epoch = (epochs.get(agentDid) ?? 0) + 1;
      epochs.set(agentDid, epoch);
      await beforeCommit();
      endedBy.push(await end.commit(raiseStatements([{ authority: `agent:${agentDid}`, epoch }])));
      keptJtis.push(end.keepJti ?? null);
      return { sockets: 0, inFlight: 0 };
    },
  };
  // Nothing else of a gate is used from here.
  return gate as GateLocal;
}

/** What the ends of this file reported to the gate, and which token each kept. */
export const endedBy: { jti: string; expMs: number }[][] = [];
export const keptJtis: (string | null)[] = [];

/** The agent's own call, under the epoch of this moment. `isGateDeaf`: its gate has not heard of an end yet. */
export function agentCall(agent: TestAgent, around: Surroundings & { isGateDeaf?: boolean } = {}): CallContext {
  const { agentDid } = agent.credentials;
  const epoch = epochs.get(agentDid) ?? 0;
  const principal: Principal = {
    kind: "agent",
    agentDid: did(agentDid),
    ownerDid: humanDid(agent.credentials.ownerDid),
    jti: claimsOf(agent.credentials.ait)["jti"] as string,
    expMs: clock.ms + DAY_MS,
    keyX: agent.publicKey,
  };
  const authority: Authority = {
    assertCurrent() {
      if (around.isGateDeaf !== true && (epochs.get(agentDid) ?? 0) !== epoch)
        throw new ProxyError("PROXY_AUTH_REVOKED");
    },
    revokedItself() {},
    fence: () => [{ authority: `agent:${agentDid}`, epoch }],
  };
  return operatorCall({ ...around, principal, authority, agentDid: did(agentDid), gate: gateStub(agentDid) });
}

/** Calls a method as the dispatcher does: parameters by its schema, a refusal naming the member. */
export async function call<R = Record<string, unknown>>(
  ctx: CallContext,
  name: string,
  params: unknown = {},
  hooks: IdentityHooks = noHooks,
): Promise<R> {
  const method = identityMethods(hooks).find((candidate) => candidate.name === name);
  if (method === undefined) throw new Error(`no method ${name}`);
  const read = method.params.safeParse(params);
  if (!read.success) {
    const issue = read.error.issues[0];
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: `${issue?.path.join(".")}: ${issue?.message}` });
  }
  const result = await method.handler(ctx, read.data);
  const shape = method.result.safeParse(result);
  if (!shape.success) throw new Error(`the result of ${name} is not what it declares: ${shape.error.message}`);
  return result as R;
}

export type TestAgent = { credentials: Credentials; publicKey: string; privateKey: CryptoKey };

export async function newKeyPair(): Promise<{ publicKey: string; privateKey: CryptoKey }> {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const raw = (await crypto.subtle.exportKey("raw", pair.publicKey)) as ArrayBuffer;
  return { publicKey: encodeBase64Url(new Uint8Array(raw)), privateKey: pair.privateKey };
}

/** Registers an agent with a fresh key. */
export async function registered(
  params: Record<string, unknown> = {},
  hooks: IdentityHooks = noHooks,
): Promise<TestAgent> {
  const keys = await newKeyPair();
  const credentials = await call<Credentials>(
    operatorCall(),
    "identity.register",
    { name: "alpha", framework: "test", publicKey: keys.publicKey, ...params },
    hooks,
  );
  return { ...keys, credentials };
}

export function did(text: string): AgentDid {
  const parsedDid = parseAgentDid(text);
  if (parsedDid === null) throw new Error(`no agent DID: ${text}`);
  return parsedDid;
}

function humanDid(text: string): HumanDid {
  const parsedDid = parseHumanDid(text);
  if (parsedDid === null) throw new Error(`no human DID: ${text}`);
  return parsedDid;
}

/** The claims of a token, unverified. */
export function claimsOf(token: string): Record<string, unknown> {
  const jws = decodeUnverifiedJws(token);
  if (!jws.ok) throw new Error(jws.error);
  return jws.value.claims as Record<string, unknown>;
}

export function headerOf(token: string): Record<string, unknown> {
  const jws = decodeUnverifiedJws(token);
  if (!jws.ok) throw new Error(jws.error);
  return jws.value.header as Record<string, unknown>;
}

export const registry = () => registryOf({ db: env.DB, config, now: clock.now });
export const source = { db: env.DB, config, now: clock.now };

/** The code a call was refused with, or `answered`. */
export async function codeOf(outcome: Promise<unknown>): Promise<string> {
  try {
    await outcome;
    return "answered";
  } catch (error) {
    if (error instanceof ProxyError) return error.code;
    throw error;
  }
}

/** D1 whose batches wait: `arrived` when the first one has come, all go on with `release`. */
export function heldDatabase(): { db: D1Database; arrived: Promise<void>; release: () => void } {
  const arrived = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  const db = {
    prepare: (query: string) => env.DB.prepare(query),
    async batch(statements: D1PreparedStatement[]) {
      arrived.resolve();
      await released.promise;
      return env.DB.batch(statements);
    },
  } as unknown as D1Database;
  return { db, arrived: arrived.promise, release: released.resolve };
}

export async function rows<T = Record<string, unknown>>(sql: string, ...bindings: unknown[]): Promise<T[]> {
  const { results } = await env.DB.prepare(sql)
    .bind(...bindings)
    .all<T>();
  return results;
}
