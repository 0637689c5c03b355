/** A registry's key, agents with signed identity tokens, signed requests, and a registry client that counts its calls. */
import { type Chain, type ChainScope, createChain, type RegistryReader } from "../../src/auth/chain.ts";
import { createOperatorTokens } from "../../src/auth/credential.ts";
import { type BodyBudget, createBodyBudget } from "../../src/auth/limits/body-budget.ts";
import { createRefusalMemory } from "../../src/auth/limits/refusal-memory.ts";
import { createLogLimit } from "../../src/telemetry/log-limit.ts";
import { createReplayMemory, nonceAgeMs, type ReplayMemory } from "../../src/auth/replay.ts";
import { createTokenMemory, type TokenMemory } from "../../src/auth/token.ts";
import { createTrustStage, type TrustSettings, type TrustStage } from "../../src/auth/trust.ts";
import type { RegistryFetch, RequestScope } from "../../src/registry/registry.ts";
import type { CacheState } from "../../src/resilience/stale-cache.ts";
import type { Trust } from "../../src/trust/pairs.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { type AgentDid, newDid } from "../../src/wire/did.ts";
import { PROOF_HEADERS, sha256Base64Url, signProof } from "../../src/wire/proof.ts";
import { err, ok } from "../../src/wire/result.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import { NOW_MS, recordingLog } from "../trust/call-context.ts";

export { NOW_MS, recordingLog } from "../trust/call-context.ts";

export const ISSUER = "https://registry.sallyport.example";
export const AUTHORITY = "registry.sallyport.example";
export const KID = "registry-key-1";
export const ACCESS_TOKEN = "spa_test-access-token";
export const OPERATOR_TOKEN = "operator-token-of-the-tests-0123456789";
const NOW_SECONDS = NOW_MS / 1_000;

const encoder = new TextEncoder();
export const b64 = (value: unknown): string => encodeBase64Url(encoder.encode(JSON.stringify(value)));

export async function newKeyPair(): Promise<CryptoKeyPair> {
  return (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
}

export async function rawPublicKey(pair: CryptoKeyPair): Promise<Uint8Array> {
  return new Uint8Array((await crypto.subtle.exportKey("raw", pair.publicKey)) as ArrayBuffer);
}

const registryPair = await newKeyPair();

export type Agent = { did: AgentDid; pair: CryptoKeyPair; x: string; claims: Record<string, unknown>; ait: string };

/** Signs any header and claims with the registry's key, or with another. */
export async function signJws(
  header: unknown,
  claims: unknown,
  key: CryptoKey = registryPair.privateKey,
): Promise<string> {
  const input = `${b64(header)}.${b64(claims)}`;
  const signature = await crypto.subtle.sign("Ed25519", key, encoder.encode(input));
  return `${input}.${encodeBase64Url(new Uint8Array(signature))}`;
}

export const AIT_HEADER = { alg: "EdDSA", typ: "AIT", kid: KID };

export async function newAgent(more: Record<string, unknown> = {}): Promise<Agent> {
  const pair = await newKeyPair();
  const x = encodeBase64Url(await rawPublicKey(pair));
  const did = newDid(AUTHORITY, "agent", newUlid(NOW_MS));
  const claims = {
    iss: ISSUER,
    sub: did,
    ownerDid: newDid(AUTHORITY, "human", newUlid(NOW_MS)),
    name: "alice",
    framework: "tests",
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x } },
    iat: NOW_SECONDS - 60,
    nbf: NOW_SECONDS - 60,
    exp: NOW_SECONDS + 3_600,
    jti: newUlid(NOW_MS),
    ...more,
  };
  return { did, pair, x, claims, ait: await signJws(AIT_HEADER, claims) };
}

export type Signed = {
  method?: string;
  path?: string;
  body?: string | Uint8Array;
  timestamp?: string;
  nonce?: string;
  /** Overrides any header; null leaves it out. */
  headers?: Record<string, string | null>;
  /** What the request says in the place of what was signed. */
  sent?: { method?: string; path?: string; body?: string | Uint8Array };
};

let nonces = 0;

/** A request of this agent's, signed, with everything that a send carries. */
export async function signedRequest(agent: Agent, to: string | null, how: Signed = {}): Promise<Request> {
  const { method = "POST", path = "/hooks/agent", body = '{"hello":1}', timestamp = String(NOW_SECONDS) } = how;
  const nonce = how.nonce ?? `nonce-${(nonces += 1)}`;
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  const bodySha256 = await sha256Base64Url(bytes);
  const proof = await signProof(agent.pair.privateKey, { method, pathWithQuery: path, timestamp, nonce, bodySha256 });
  const headers = new Headers({
    Authorization: `Claw ${agent.ait}`,
    "X-Claw-Agent-Access": ACCESS_TOKEN,
    [PROOF_HEADERS.timestamp]: timestamp,
    [PROOF_HEADERS.bodySha256]: bodySha256,
    [PROOF_HEADERS.proof]: proof,
  });
  headers.set(PROOF_HEADERS.nonce, nonce);
  if (to !== null) headers.set("X-Claw-Recipient-Agent-Did", to);
  for (const [name, value] of Object.entries(how.headers ?? {})) {
    if (value === null) headers.delete(name);
    else headers.set(name, value);
  }
  const sentMethod = how.sent?.method ?? method;
  const sentBody = how.sent?.body ?? bytes;
  return new Request(`https://proxy.example.com${how.sent?.path ?? path}`, {
    method: sentMethod,
    headers,
    ...(sentMethod === "GET" || sentBody.length === 0 ? {} : { body: sentBody as BodyInit }),
  });
}

/** A registry client whose answers a test sets, and which counts what it was asked. */
export type FakeRegistry = RegistryReader & {
  calls: { keys: number; crl: number; access: number };
  activeKids: Set<string>;
  revokedKids: Set<string>;
  revokedJtis: Set<string>;
  down: { keys: boolean; crl: false | "unavailable" | "too-old"; access: boolean };
  invalidAccess: Set<string>;
};

export function fakeRegistry(): FakeRegistry {
  const cache: CacheState = "hit";
  const registry: FakeRegistry = {
    calls: { keys: 0, crl: 0, access: 0 },
    activeKids: new Set([KID]),
    revokedKids: new Set(),
    revokedJtis: new Set(),
    down: { keys: false, crl: false, access: false },
    invalidAccess: new Set(),
    keys: {
      async find(kid) {
        registry.calls.keys += 1;
        if (registry.down.keys) return err("unavailable");
        if (registry.revokedKids.has(kid)) return err("revoked-kid");
        if (!registry.activeKids.has(kid)) return err("unknown-kid");
        return ok({ key: registryPair.publicKey, cache });
      },
      isActive: (kid) => registry.activeKids.has(kid) && !registry.revokedKids.has(kid),
    },
    crl: {
      async isRevoked(jti) {
        registry.calls.crl += 1;
        if (registry.down.crl !== false) return err(registry.down.crl);
        return ok({ revoked: registry.revokedJtis.has(jti), cache });
      },
    },
    access: {
      async validate({ token }) {
        registry.calls.access += 1;
        if (registry.down.access) return err({ reason: "unavailable", keyHash: "key-hash", retryAfterMs: 1_000 });
        if (registry.invalidAccess.has(token)) return err({ reason: "invalid" });
        return ok({ verdict: "valid", cache, keyHash: "key-hash", validatedAtMs: NOW_MS });
      },
    },
  };
  return registry;
}

export type ChainHarness = {
  chain: Chain;
  registry: FakeRegistry;
  log: ReturnType<typeof recordingLog>;
  tokens: TokenMemory;
  replays: ReplayMemory;
  bodies: BodyBudget;
  trust: TrustStage;
  scope: ChainScope;
  nowMs: number;
  /** Reads of the trust store, and what it says. */
  store: { reads: number; down: boolean; pairs: Map<string, Trust> };
  /** Work that outlived its request. */
  background: Promise<unknown>[];
  trusts(a: string, b: string, epoch?: number): void;
};

export const TRUST_SETTINGS: TrustSettings = {
  trustTtlMs: 90_000,
  trustMaxStaleMs: 900_000,
  storeTimeoutMs: 2_000,
  breakerFailures: 5,
  breakerWindowMs: 60_000,
  breakerOpenMs: 30_000,
};

/** The fake registry answers by itself: nothing goes out. */
const unreachable: RegistryFetch = () => Promise.reject(new Error("nothing goes out in these tests"));

const pairKey = (a: string, b: string): string => [a, b].toSorted().join(" ");

/** The registry's public key, for a keys document. */
export const registryX = async (): Promise<string> => encodeBase64Url(await rawPublicKey(registryPair));

/** The whole chain over a fake registry and a fake trust store, with a clock that a test sets. */
export function newChainHarness(
  reach: {
    reader?: RegistryReader;
    fetch?: RegistryFetch;
    authDeadlineMs?: number;
    rateLimitPerAgent?: number;
    proofV1?: "accept" | "refuse";
    publicAuthorities?: readonly string[];
  } = {},
): ChainHarness {
  const log = recordingLog();
  const registry = fakeRegistry();
  const tokens = createTokenMemory();
  const replays = createReplayMemory(nonceAgeMs(300));
  const bodies = createBodyBudget();
  const store: ChainHarness["store"] = { reads: 0, down: false, pairs: new Map() };
  const background: Promise<unknown>[] = [];
  const trust = createTrustStage({
    settings: TRUST_SETTINGS,
    log,
    lookUpGroup: async () => null,
    lookUp: async (a, b) => {
      store.reads += 1;
      if (store.down) throw new Error("D1 is down");
      return store.pairs.get(pairKey(a, b)) ?? { trusted: false, epoch: 0 };
    },
  });
  const harness: ChainHarness = {
    log,
    registry,
    tokens,
    replays,
    bodies,
    trust,
    store,
    background,
    nowMs: NOW_MS,
    scope: { now: () => harness.nowMs, address: "192.0.2.1", log, background: (work) => void background.push(work) },
    trusts: (a, b, epoch = 1) => void store.pairs.set(pairKey(a, b), { trusted: true, epoch }),
    chain: createChain({
      settings: {
        registryIssuer: ISSUER,
        registryAuthority: AUTHORITY,
        authDeadlineMs: reach.authDeadlineMs ?? 5_000,
        skewMaxSeconds: 300,
        skewWarnSeconds: 200,
        proofV1: reach.proofV1 ?? "accept",
        publicAuthorities: reach.publicAuthorities ?? [],
      },
      registry: reach.reader ?? registry,
      registryFetch: reach.fetch ?? unreachable,
      kv: null,
      tokens,
      replays,
      refusals: createRefusalMemory(reach.rateLimitPerAgent ?? 600),
      bodies,
      trust,
      assertions: null,
      operators: createOperatorTokens([OPERATOR_TOKEN, "the-next-operator-token-0123456789abcd"]),
      logLimit: createLogLimit(),
    }),
  };
  return harness;
}

/** What one question to the registry or the store brings along. */
export function requestScope(nowMs: number | (() => number) = NOW_MS): RequestScope & { waiting: Promise<unknown>[] } {
  const waiting: Promise<unknown>[] = [];
  const now = typeof nowMs === "number" ? () => nowMs : nowMs;
  return {
    now,
    log: recordingLog(),
    waiting,
    background: (work) => void waiting.push(work),
    signal: new AbortController().signal,
    fetch: unreachable,
    kv: null,
  };
}
