/**
 * The whole program against a registry that fails on cue, with a clock that is moved: real gates, real D1, real KV, and
 * as many isolates as a test starts. Only the network to the registry, and the clock, are not real.
 */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { vi } from "vitest";
import { app } from "../../src/app.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import {
  ACCESS_TOKEN,
  type Agent,
  AIT_HEADER,
  ISSUER,
  KID,
  newAgent as newSignedAgent,
  newKeyPair,
  rawPublicKey,
  registryX,
  type Signed,
  signedRequest,
  signJws,
} from "../auth/fixture.ts";

export const SECOND_MS = 1_000;
export const MINUTE_MS = 60_000;

export type Document = "keys" | "crl" | "access";
/** An answer in place of the right one; `hang` never comes. */
export type Fault = () => Response | Promise<Response>;
export const FAULTS = {
  down: () => Promise.reject(new TypeError("connection refused")),
  500: () => new Response("broken", { status: 500 }),
  hang: () => new Promise<Response>(() => {}),
} satisfies Record<string, Fault>;

export type Key = { kid: string; x: string; status: "active" | "revoked" };
export type Line = { level: string; event: string } & Record<string, unknown>;

type Revoked = { jti: string; agentDid: string };

/** The registry's side: what it serves, how it fails, and how often it was asked. */
export type HarnessRegistry = {
  keys: Key[];
  revoked: Revoked[];
  /** The list of this moment where null. */
  crl: Fault | null;
  faults: Partial<Record<Document, Fault>>;
  calls: Record<Document, number>;
  inFlight: Record<Document, number>;
  mostInFlight: Record<Document, number>;
  fail(fault: Fault | null, documents?: Document[]): void;
  /** Answers in the place of this registry where it does not fail. */
  forwardTo: ((request: Request) => Promise<Response>) | null;
  forward(to: (request: Request) => Promise<Response>): void;
  forgetCalls(): void;
  signedCrl(at: { iat: number; revoked?: Revoked[] }): Promise<Response>;
};

/** A Worker of its own, with nothing in its memory. `send` says the status, and the code where it is no 202. */
export type Isolate = {
  ask(request: Request): Promise<Response>;
  send(agent: Agent, to: Agent, how?: Signed): Promise<string>;
};

export type Harness = {
  registry: HarnessRegistry;
  /** @param more settings and bindings of this one */
  newIsolate(more?: Record<string, unknown>): Isolate;
  /** Lines of the log so far. */
  lines: Line[];
  linesOf(event: string): Line[];
  nowMs(): number;
  nowSeconds(): number;
  /** Moves the clock. */
  pass(ms: number): void;
  /** Lets the clock run while `work` goes on: a gate is idle only when what it has put off is due and done. */
  during<T>(work: Promise<T>): Promise<T>;
  /** An agent that the registry has issued an identity to, under this key or another. */
  newAgent(under?: { kid?: string; key?: CryptoKey }): Promise<Agent>;
  /** Trust as a confirmed ticket leaves it. */
  pair(a: Agent, b: Agent): Promise<void>;
  newKey(kid: string): Promise<{ key: Key; privateKey: CryptoKey }>;
};
let harnesses = 0;

/** @param settings of the proxy, by name */
export async function newHarness(settings: Record<string, string> = {}): Promise<Harness> {
  harnesses += 1;
  // The second level outlives isolates, and here test cases: each begins without one.
  const { keys: kept } = await env.CACHE.list();
  await Promise.all(kept.map(({ name }) => env.CACHE.delete(name)));
  const registryUrl = `https://registry-${harnesses}.example.net`;
  vi.useFakeTimers({ toFake: ["Date"] });
  let nowMs = Date.now();
  vi.setSystemTime(nowMs);
  const nowSeconds = (): number => Math.floor(nowMs / 1_000);

  const registry: HarnessRegistry = {
    keys: [{ kid: KID, x: await registryX(), status: "active" }],
    revoked: [],
    crl: null,
    faults: {},
    calls: { keys: 0, crl: 0, access: 0 },
    inFlight: { keys: 0, crl: 0, access: 0 },
    mostInFlight: { keys: 0, crl: 0, access: 0 },
    fail(fault: Fault | null, documents: Document[] = ["keys", "crl", "access"]): void {
      for (const document of documents) {
        if (fault === null) delete registry.faults[document];
        else registry.faults[document] = fault;
      }
    },
    forwardTo: null,
    forward(to) {
      registry.forwardTo = to;
    },
    forgetCalls(): void {
      registry.calls = { keys: 0, crl: 0, access: 0 };
      registry.mostInFlight = { keys: 0, crl: 0, access: 0 };
    },
    async signedCrl(at: { iat: number; revoked?: { jti: string; agentDid: string }[] }): Promise<Response> {
      const revocations = (at.revoked ?? registry.revoked).map((each) => ({ ...each, revokedAt: at.iat }));
      const claims = { iss: ISSUER, jti: newUlid(nowMs), iat: at.iat, exp: at.iat + 86_400, revocations };
      return Response.json({ crl: await signJws({ alg: "EdDSA", typ: "CRL", kid: KID }, claims) });
    },
  };

  async function answer(document: Document, request: Request): Promise<Response> {
    const fault = registry.faults[document];
    if (fault !== undefined) return fault();
    if (registry.forwardTo !== null) return registry.forwardTo(request);
    if (document === "keys")
      return Response.json({ keys: registry.keys.map((key) => ({ alg: "EdDSA", crv: "Ed25519", ...key })) });
    if (document === "access") return new Response(null, { status: 204 });
    return registry.crl === null ? registry.signedCrl({ iat: nowSeconds() }) : registry.crl();
  }

  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    if (url.origin !== registryUrl) throw new TypeError("connection refused");
    const document = url.pathname.endsWith("claw-keys.json")
      ? "keys"
      : url.pathname.endsWith("/crl")
        ? "crl"
        : "access";
    registry.calls[document] += 1;
    registry.inFlight[document] += 1;
    registry.mostInFlight[document] = Math.max(registry.mostInFlight[document], registry.inFlight[document]);
    try {
      return await answer(document, new Request(input, init));
    } finally {
      registry.inFlight[document] -= 1;
    }
  });

  const lines: Line[] = [];
  for (const level of ["log", "warn", "error"] as const) {
    vi.spyOn(console, level).mockImplementation((line: unknown) => {
      if (typeof line === "string" && line.startsWith("{")) lines.push(JSON.parse(line) as Line);
    });
  }

  const newIsolate = (more: Record<string, unknown> = {}) => {
    const bindings = { ...env, REGISTRY_URL: registryUrl, METRICS: "off", ...settings, ...more } as unknown as Env;
    const ask = (request: Request): Promise<Response> =>
      Promise.resolve(app.fetch(request, bindings, createExecutionContext()));
    const send = async (agent: Agent, to: Agent, how: Signed = {}): Promise<string> => {
      const answered = await ask(await signedRequest(agent, to.did, { timestamp: String(nowSeconds()), ...how }));
      const body = await answered.json<{ code?: string }>();
      return answered.status === 202 ? "202" : `${answered.status} ${body.code ?? ""}`;
    };
    return { ask, send };
  };

  return {
    registry,
    newIsolate,
    lines,
    linesOf: (event: string): Line[] => lines.filter((line) => line.event === event),
    nowMs: () => nowMs,
    nowSeconds,
    pass(ms: number): void {
      nowMs += ms;
      vi.setSystemTime(nowMs);
    },
    async during<T>(work: Promise<T>): Promise<T> {
      const clock = setInterval(() => {
        nowMs += 250;
        vi.setSystemTime(nowMs);
      }, 10);
      try {
        return await work;
      } finally {
        clearInterval(clock);
      }
    },
    newAgent(under: { kid?: string; key?: CryptoKey } = {}): Promise<Agent> {
      return newAgentAt(nowSeconds(), nowMs, under);
    },
    async pair(a: Agent, b: Agent): Promise<void> {
      const [low, high] = [a.did, b.did].toSorted((one, other) => (one < other ? -1 : 1));
      await env.DB.prepare(
        "INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms) VALUES (?, ?, 1, '{}', '{}', ?)",
      )
        .bind(low, high, nowMs)
        .run();
    },
    newKey: async (kid: string) => {
      const pair = await newKeyPair();
      const key: Key = { kid, x: encodeBase64Url(await rawPublicKey(pair)), status: "active" };
      return { key, privateKey: pair.privateKey };
    },
  };
}

async function newAgentAt(nowSeconds: number, nowMs: number, under: { kid?: string; key?: CryptoKey }): Promise<Agent> {
  const times = { iat: nowSeconds - 60, nbf: nowSeconds - 60, exp: nowSeconds + 86_400, jti: newUlid(nowMs) };
  const agent = await newSignedAgent(times);
  if (under.key === undefined) return agent;
  return { ...agent, ait: await signJws({ ...AIT_HEADER, kid: under.kid ?? KID }, agent.claims, under.key) };
}

/** How often each answer was given. */
export function tallied(answers: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

export { ACCESS_TOKEN, type Agent };
