/** A registry of the tests' own, which fails on cue, and the client before it. */
import { vi } from "vitest";
import type { BreakerTransition } from "../../src/resilience/breaker.ts";
import { createRegistry, type Registry, type RequestScope } from "../../src/registry/registry.ts";
import type { RegistryFetch, RegistrySettings } from "../../src/registry/scope.ts";
import type { Fields, Log } from "../../src/telemetry/log.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { ACCESS_VALIDATE_PATH, CRL_PATH, KEYS_PATH } from "../../src/wire/registry-documents.ts";

export const ISSUER = "https://registry.example.test";
export const AGENT = "did:cdi:registry.example.test:agent:01J0000000000000000000000A";
export const START_MS = Date.parse("2026-11-22T12:00:00Z");

export const SETTINGS: RegistrySettings = {
  registryUrl: "https://registry.example.test",
  registryIssuer: ISSUER,
  registryTimeoutMs: 5_000,
  storeTimeoutMs: 2_000,
  keysTtlMs: 3_600_000,
  keysMaxStaleMs: 86_400_000,
  crlRefreshMs: 300_000,
  crlMaxAgeMs: 1_800_000,
  crlStaleBehavior: "fail-closed",
  accessTtlMs: 60_000,
  accessMaxStaleMs: 900_000,
  breakerFailures: 5,
  breakerWindowMs: 60_000,
  breakerOpenMs: 30_000,
};

export type SigningKey = { kid: string; x: string; status: "active" | "revoked"; privateKey: CryptoKey };

export async function newKey(kid: string): Promise<SigningKey> {
  const pair = (await crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"])) as CryptoKeyPair;
  const raw = (await crypto.subtle.exportKey("raw", pair.publicKey)) as ArrayBuffer;
  return { kid, x: encodeBase64Url(new Uint8Array(raw)), status: "active", privateKey: pair.privateKey };
}

export type Revoked = { jti: string; agentDid: string; reason?: string; revokedAt: number };

/** Jti number `n`, as a ULID. */
export const jti = (n: number): string => `01J${String(n).padStart(23, "0")}`;

export async function signList(
  key: SigningKey,
  claims: Record<string, unknown>,
  header: Record<string, unknown> = {},
): Promise<string> {
  return signText(key, JSON.stringify(claims), header);
}

export async function signText(
  key: SigningKey,
  payload: string,
  header: Record<string, unknown> = {},
): Promise<string> {
  const encoder = new TextEncoder();
  const part = (text: string): string => encodeBase64Url(encoder.encode(text));
  const input = `${part(JSON.stringify({ alg: "EdDSA", typ: "CRL", kid: key.kid, ...header }))}.${part(payload)}`;
  const signature = await crypto.subtle.sign("Ed25519", key.privateKey, encoder.encode(input));
  return `${input}.${encodeBase64Url(new Uint8Array(signature))}`;
}

export const json = (value: unknown, status = 200, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify(value), { status, headers: { "Content-Type": "application/json", ...headers } });

/** Ways for a registry to fail. */
export const FAULTS = {
  down: async () => {
    throw new TypeError("connection refused");
  },
  status500: async () => new Response("oops", { status: 500 }),
  status429: async () => new Response(null, { status: 429, headers: { "Retry-After": "20" } }),
  redirect: async () => new Response(null, { status: 302, headers: { Location: "https://elsewhere.test/" } }),
  hanging: () => new Promise<Response>(() => undefined),
  trickling: async () =>
    new Response(
      new ReadableStream({
        async pull(controller) {
          await new Promise((resolve) => setTimeout(resolve, 1_000));
          controller.enqueue(new TextEncoder().encode(" "));
        },
      }),
    ),
  resetting: async () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          controller.error(new TypeError("connection reset"));
        },
      }),
    ),
  html: async () => new Response("<!doctype html><title>Welcome</title>", { headers: { "Content-Type": "text/html" } }),
  emptyObject: async () => json({}),
  fiveMegabytes: async () => new Response(new Uint8Array(5 * 1_024 * 1_024).fill(0x20)),
  fiveMegabytesUnannounced: async () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          controller.enqueue(new Uint8Array(65_536).fill(0x20));
        },
      }),
    ),
} satisfies Record<string, () => Promise<Response>>;

export type Fault = keyof typeof FAULTS;

export type FakeRegistry = {
  keys: SigningKey[];
  /** Entries of the document that are put beside the keys as they are. */
  extraKeys: unknown[];
  /** The signed list, or null for "there is none". */
  crl: string | null;
  accessStatus: number;
  faults: Partial<Record<"keys" | "crl" | "access", Fault>>;
  readonly calls: { keys: number; crl: number; access: number };
  lastAccess: { headers: Headers; body: unknown } | null;
  /** Fails in every answer, or, by null, in none. */
  fail(fault: Fault | null): void;
  publish(key: SigningKey, jtis: string[], iatMs: number, over?: Record<string, unknown>): Promise<void>;
  fetch: RegistryFetch;
};

/** A registry with keys, a list and an opinion on access tokens; a fault replaces its answer to a path. */
export function createFakeRegistry(keys: SigningKey[]): FakeRegistry {
  const registry: FakeRegistry = {
    keys,
    extraKeys: [],
    crl: null,
    accessStatus: 204,
    faults: {},
    calls: { keys: 0, crl: 0, access: 0 },
    lastAccess: null,
    fail(fault) {
      registry.faults = fault === null ? {} : { keys: fault, crl: fault, access: fault };
    },
    async publish(key, jtis, iatMs, over = {}) {
      const revocations = jtis.map((revoked) => ({ jti: revoked, agentDid: AGENT, revokedAt: iatMs }));
      const iat = Math.floor(iatMs / 1_000);
      registry.crl = await signList(key, { iss: ISSUER, jti: jti(0), iat, exp: iat + 3_600, revocations, ...over });
    },
    fetch: async (path, init) => {
      const what = path === KEYS_PATH ? "keys" : path === CRL_PATH ? "crl" : "access";
      registry.calls[what] += 1;
      if (what === "access" && path !== ACCESS_VALIDATE_PATH) throw new Error(`unknown path ${path}`);
      const fault = registry.faults[what];
      if (fault !== undefined) return FAULTS[fault]();
      if (what === "keys") return json({ keys: [...registry.keys.map(publicEntry), ...registry.extraKeys] });
      if (what === "crl") {
        return registry.crl === null ? json({ code: "CRL_NOT_FOUND" }, 404) : json({ crl: registry.crl });
      }
      registry.lastAccess = { headers: new Headers(init?.headers), body: JSON.parse(init?.body ?? "null") as unknown };
      return new Response(null, { status: registry.accessStatus });
    },
  };
  return registry;
}

export function publicEntry({ kid, x, status }: SigningKey) {
  return { kid, alg: "EdDSA", crv: "Ed25519", x, status };
}

export type Line = { level: string; event: string; fields: Fields };

function recordingLog(lines: Line[]): Log {
  const at =
    (level: string) =>
    (event: string, fields: Fields = {}): void =>
      void lines.push({ level, event, fields });
  return { info: at("info"), warn: at("warn"), error: at("error"), with: () => recordingLog(lines) };
}

/** One isolate: its own caches and breakers before the same registry and the same KV. */
export function createIsolate(
  fake: Pick<FakeRegistry, "fetch">,
  options: { settings?: Partial<RegistrySettings>; kv?: KVNamespace | null; now?: () => number } = {},
) {
  const lines: Line[] = [];
  const transitions: BreakerTransition[] = [];
  const pending = new Set<Promise<unknown>>();
  const log = recordingLog(lines);
  const registry: Registry = createRegistry({
    settings: { ...SETTINGS, ...options.settings },
    log,
    onTransition: (transition) => void transitions.push(transition),
  });
  const scope = (signal = new AbortController().signal): RequestScope => ({
    now: options.now ?? Date.now,
    background: (work) => {
      pending.add(work);
      void work.finally(() => pending.delete(work));
    },
    signal,
    log,
    fetch: fake.fetch,
    kv: options.kv ?? null,
  });
  return {
    registry,
    lines,
    transitions,
    scope,
    /** Events of this name, in order. */
    said: (event: string) => lines.filter((line) => line.event === event),
    find: (kid: string) => registry.keys.find(kid, scope()),
    isRevoked: (id: string) => registry.crl.isRevoked(id, scope()),
    validate: (token = "access-token", agentDid = AGENT, aitJti = jti(1)) =>
      registry.access.validate({ token, agentDid, aitJti }, scope()),
    /** Everything that was begun in the background has ended. */
    settle: async (): Promise<void> => {
      while (pending.size > 0) await Promise.all(pending);
    },
  };
}

/** Moves the clock, timers included. */
export async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

/** A KV that counts, and fails or hangs on cue. */
export function createFakeKv() {
  const entries = new Map<string, { value: Uint8Array; metadata: unknown; expiresAtMs: number }>();
  const kv = {
    entries,
    fault: null as null | "down" | "hanging" | "slow",
    puts: [] as { key: string; expirationTtl: number | undefined }[],
    gets: 0,
    async misbehave() {
      if (kv.fault === "slow") await new Promise((resolve) => setTimeout(resolve, 50));
      if (kv.fault === "down") throw new Error("KV is down");
      if (kv.fault === "hanging") await new Promise(() => undefined);
    },
    async getWithMetadata(key: string) {
      kv.gets += 1;
      await kv.misbehave();
      const entry = entries.get(key);
      if (entry === undefined || Date.now() >= entry.expiresAtMs) return { value: null, metadata: null };
      return { value: entry.value.slice().buffer, metadata: entry.metadata };
    },
    async get(key: string) {
      const found = await kv.getWithMetadata(key);
      return found.value === null ? null : new TextDecoder().decode(found.value);
    },
    async put(key: string, value: string | Uint8Array, options?: { expirationTtl?: number; metadata?: unknown }) {
      await kv.misbehave();
      const ttlSeconds = options?.expirationTtl;
      if (ttlSeconds !== undefined && ttlSeconds < 60) throw new Error("expirationTtl must be at least 60");
      kv.puts.push({ key, expirationTtl: ttlSeconds });
      const expiresAtMs = ttlSeconds === undefined ? Number.POSITIVE_INFINITY : Date.now() + ttlSeconds * 1_000;
      const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value.slice();
      entries.set(key, { value: bytes, metadata: options?.metadata ?? null, expiresAtMs });
    },
    async delete(key: string) {
      await kv.misbehave();
      entries.delete(key);
    },
    keyOf(name: string): string {
      const found = [...entries.keys()].find((key) => key.includes(`/${name}/`));
      if (found === undefined) throw new Error(`nothing is stored as ${name}`);
      return found;
    },
    binding(): KVNamespace {
      return kv as unknown as KVNamespace;
    },
  };
  return kv;
}
