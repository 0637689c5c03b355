/** Headers before anything is fetched, and settings before anything runs. */
import { generateKeyPairSync } from "node:crypto";
import * as fc from "fast-check";
import { openDecision } from "../../../src/auth/decision.ts";
import { HOOK, readForm, type RouteNeeds } from "../../../src/auth/form.ts";
import type { Addressee } from "../../../src/auth/trust.ts";
import { createTokenMemory } from "../../../src/auth/token.ts";
import { parseConfig } from "../../../src/config.ts";
import { isConversationId, isReplyTo } from "../../../src/wire/frames.ts";
import { agentDid, anyText, mutated, ulid } from "../arbitraries.ts";
import { must, target } from "../target.ts";

/** A request with these headers, as far as a proof covers it. */
const provenBy = (headers: Headers) => ({
  method: "POST",
  pathWithQuery: "/hooks/agent",
  authorities: ["gate.example.com"],
  headers,
});

/** A point of full order. */
const STRONG_X = String(generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" }).x);
const NOW_MS = 1_795_348_800_000;
const ROUTES: RouteNeeds[] = [
  HOOK,
  { route: "rpc", accepts: ["agent", "device", "shared", "apiKey", "operator"], access: true, recipient: false },
  { route: "operator", accepts: ["operator"], access: false, recipient: false },
];
const secret = (prefix: string) =>
  mutated(
    fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => prefix + Buffer.from(bytes).toString("base64url")),
  );
const authorization = fc.oneof(
  fc
    .tuple(
      fc.constantFrom("Claw", "Device", "Shared", "Bearer", "bearer", "CLAW", "Basic", "", "Claw,Bearer"),
      fc.constantFrom(" ", "  ", "", "\t"),
      fc.oneof(secret("spd_"), secret("sps_"), secret("spk_"), anyText, fc.constant("a.b.c")),
    )
    .map((parts) => parts.join("")),
  anyText,
);
const headers = fc.dictionary(
  fc.constantFrom(
    "Authorization",
    "Cf-Access-Jwt-Assertion",
    "X-Claw-Agent-Did",
    "X-Claw-Agent-Access",
    "X-Claw-Timestamp",
    "X-Claw-Nonce",
    "X-Claw-Body-SHA256",
    "X-Claw-Proof",
    "X-Claw-Signature",
    "X-Claw-Recipient-Agent-Did",
  ),
  fc.oneof(
    authorization,
    mutated(agentDid),
    anyText,
    fc.constantFrom(String(NOW_MS / 1_000), "A".repeat(43), "A".repeat(86)),
  ),
  { maxKeys: 9 },
);
const settings = [
  "REGISTRY_URL",
  "REGISTRY_ISSUER",
  "REGISTRY_TIMEOUT_MS",
  "KEYS_TTL_MS",
  "KEYS_MAX_STALE_MS",
  "SKEW_MAX_SECONDS",
  "RELAY_QUEUE_MAX",
  "RELAY_RETRY_JITTER_RATIO",
  "RATE_LIMIT_PER_AGENT",
  "RATE_LIMIT_PER_IP",
  "FGAC_ENFORCE",
  "FGAC_TASKS_DUAL_WRITE",
  "AUTHZ_GRAPH",
  "OPERATOR_TOKEN",
  "REGISTRY_SIGNING_SECRET",
  "RELAY_ALLOWED_ORIGINS",
  "CRL_STALE_BEHAVIOR",
];

const GOOD_SETTINGS = {
  REGISTRY_ISSUER: "https://registry.example.com",
  REGISTRY_SIGNING_SECRET: "s".repeat(40),
  OPERATOR_TOKEN: "t".repeat(40),
  FGAC_TASKS_DUAL_WRITE: "on",
  FGAC_AGENT_API_KEYS_DUAL_WRITE: "on",
};

type Caller = { kind: "agent" | "device" | "shared" | "apiKey" | "operator"; headers: [name: string, value: string][] };

const b64url = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => Buffer.from(bytes).toString("base64url"));
const HOST = "registry.example.com";
/** In form alone: who has signed it is asked later. */
const identityToken = fc
  .record({ sub: ulid, ownerDid: ulid, jti: ulid, signature: b64url(64) })
  .map(({ sub, ownerDid, jti, signature }) => {
    const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = {
      iss: `https://${HOST}`,
      sub: `did:cdi:${HOST}:agent:${sub}`,
      ownerDid: `did:cdi:${HOST}:human:${ownerDid}`,
      name: "an agent",
      framework: "test",
      cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: STRONG_X } },
      iat: NOW_MS / 1_000 - 60,
      nbf: NOW_MS / 1_000 - 60,
      exp: NOW_MS / 1_000 + 600,
      jti,
    };
    return `${part({ alg: "EdDSA", typ: "AIT", kid: "k" })}.${part(claims)}.${signature}`;
  });
const proof = fc
  .record({ nonce: fc.uuid(), hash: b64url(32), signature: b64url(64), offset: fc.integer({ min: -300, max: 300 }) })
  .map(({ nonce, hash, signature, offset }): Caller["headers"] => [
    ["X-Claw-Timestamp", String(NOW_MS / 1_000 + offset)],
    ["X-Claw-Nonce", nonce],
    ["X-Claw-Body-SHA256", hash],
    ["X-Claw-Proof", signature],
  ]);
const caller: fc.Arbitrary<Caller> = fc
  .record({ token: identityToken, proof, did: agentDid, own: ulid, secret: b64url(32) })
  .map(({ own, ...rest }) => ({ ...rest, self: `did:cdi:${HOST}:agent:${own}` }))
  .chain(({ token, proof: proven, did, self, secret: body }) =>
    fc.constantFrom<Caller>(
      {
        kind: "agent",
        headers: [
          ["Authorization", `Claw ${token}`],
          ["X-Claw-Agent-Access", body],
          ["X-Claw-Recipient-Agent-Did", did],
          ...proven,
        ],
      },
      { kind: "device", headers: [["Authorization", `Device spd_${body}`], ["X-Claw-Agent-Did", self], ...proven] },
      {
        kind: "shared",
        headers: [
          ["Authorization", `Shared sps_${body}`],
          ["X-Claw-Agent-Did", self],
        ],
      },
      { kind: "apiKey", headers: [["Authorization", `Bearer spk_${body}`]] },
      { kind: "operator", headers: [["Authorization", `Bearer ${body}`]] },
    ),
  );
type Spoiled = { caller: Caller; sent: [name: string, value: string][]; route: number };
/** Right but for some headers: taken away, doubled, changed, or given by somebody else. */
const spoiledHeaders: fc.Arbitrary<Spoiled> = fc
  .record({ caller, other: caller, route: fc.nat({ max: ROUTES.length - 1 }) })
  .chain(({ caller: one, other, route }) =>
    fc
      .array(
        fc.record({
          pick: fc.nat(),
          how: fc.constantFrom("remove", "twice", "change", "text", "of another", "add"),
          text: anyText,
          inserted: fc.constantFrom(" ", "\t", ",", "=", "a", "", "\u00a0"),
          at: fc.nat(),
        }),
        { maxLength: 2 },
      )
      .map((changes) => {
        const sent = structuredClone(one.headers);
        for (const { pick, how, text, inserted, at } of changes) {
          const index = pick % Math.max(1, sent.length);
          const [name, value] = sent[index] ?? ["X-Claw-Nonce", ""];
          const place = at % (value.length + 1);
          const extra = other.headers[pick % other.headers.length] ?? ["X-Claw-Nonce", ""];
          if (how === "remove") sent.splice(index, 1);
          else if (how === "twice") sent.push([name, value]);
          else if (how === "change") sent[index] = [name, value.slice(0, place) + inserted + value.slice(place + 1)];
          else if (how === "text") sent[index] = [name, text];
          else if (how === "add") sent.push(extra);
          else sent[index] = extra;
        }
        return { caller: one, sent, route };
      }),
  );

/** The headers as a server gets them, or null where no HTTP library would send them. */
function asReceived(sent: readonly [name: string, value: string][]): Headers | null {
  try {
    return new Headers(sent.map(([name, value]) => [name, value]));
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}

/** Whether an addressee is what the headers say. */
function namesWhom(addressee: Addressee | null, value: (name: string) => string, sender: string): boolean {
  if (addressee === null) return false;
  const group = addressee.kind === "pair" ? "" : addressee.groupId;
  const recipient = addressee.kind === "group" ? "" : addressee.recipientDid;
  return (
    group === value("X-Claw-Group-Id") && recipient === value("X-Claw-Recipient-Agent-Did") && recipient !== sender
  );
}

export const requests = [
  target<Spoiled>({
    name: "headers of every credential, right but for some",
    weight: 4,
    acceptedAtLeast: 0.1,
    arbitrary: spoiledHeaders,
    holds({ caller: { kind, headers: right }, sent, route }) {
      const headersSent = asReceived(sent);
      if (headersSent === null) return false;
      const needs = ROUTES[route] ?? HOOK;
      const form = readForm(
        provenBy(headersSent),
        needs,
        {
          tokens: createTokenMemory(),
          settings: {
            registryIssuer: `https://${HOST}`,
            registryAuthority: HOST,
            skewMaxSeconds: 300,
            proofV1: "accept",
            takesAssertions: true,
          },
          nowMs: NOW_MS,
        },
        openDecision(needs.route, NOW_MS),
      );
      const isUntouched = JSON.stringify(sent) === JSON.stringify(right);
      if (isUntouched) must(form.ok === needs.accepts.includes(kind), "what is right passes where its kind may");
      if (!form.ok) return false;
      const value = (name: string): string => headersSent.get(name) ?? "";
      must(needs.accepts.includes(kindOf(form.value.kind)), "only what the route takes passes");
      const secretOf = (scheme: string): string => value("Authorization").slice(scheme.length).trimStart();
      if (form.value.kind === "agent") {
        const claims = JSON.parse(Buffer.from(secretOf("claw").split(".")[1] ?? "", "base64url").toString()) as {
          sub: string;
        };
        must(form.value.ait.claims.sub === claims.sub, "the agent is the token's");
        must(!needs.access || /^[\x21-\x7e]+$/.test(form.value.access ?? ""), "an access token is visible ASCII");
        must(
          !needs.recipient || namesWhom(form.value.addressee, value, claims.sub),
          "the recipient and the group are those that are named, and the recipient is somebody else",
        );
      } else if (form.value.kind === "access")
        must(value("Cf-Access-Jwt-Assertion") === form.value.assertion, "the assertion is the one that was sent");
      else
        must(
          secretOf(form.value.kind === "device" ? "device" : form.value.kind === "shared" ? "shared" : "bearer") ===
            form.value.secret,
          "the secret is the one that was sent",
        );
      if (form.value.kind === "device" || form.value.kind === "shared")
        must(
          form.value.agentDid === value("X-Claw-Agent-Did") && /^sp[ds]_[\w-]{43}$/.test(form.value.secret),
          "such a secret has its form, and its agent is the one that is named",
        );
      if ("proof" in form.value) {
        const { timestampMs, nonce } = form.value.proof;
        must(Math.abs(timestampMs - NOW_MS) <= 300_000, "its time is within the window");
        must(
          /^[\x21-\x7e]{1,256}$/.test(nonce) && nonce === value("X-Claw-Nonce"),
          "its nonce is the one that was sent",
        );
      }
      return true;
    },
  }),
  target<{ headers: Record<string, string>; route: number }>({
    name: "headers of a stranger",
    weight: 2,
    acceptedAtLeast: 0,
    arbitrary: fc.record({ headers, route: fc.nat({ max: ROUTES.length - 1 }) }),
    holds({ headers: sent, route }) {
      let received: Headers;
      try {
        received = new Headers(sent);
      } catch (error) {
        // No HTTP library sends these.
        if (error instanceof TypeError) return false;
        throw error;
      }
      const needs = ROUTES[route] ?? HOOK;
      const decision = openDecision(needs.route, NOW_MS);
      const form = readForm(
        provenBy(received),
        needs,
        {
          tokens: createTokenMemory(),
          settings: {
            registryIssuer: "https://registry.example.com",
            registryAuthority: "registry.example.com",
            skewMaxSeconds: 300,
            proofV1: "accept",
            takesAssertions: true,
          },
          nowMs: NOW_MS,
        },
        decision,
      );
      if (!form.ok) return false;
      must(needs.accepts.includes(kindOf(form.value.kind)), "only what the route takes passes");
      must(form.value.kind !== "agent", "no identity token comes out of noise");
      if (form.value.kind === "device" || form.value.kind === "shared")
        must(form.value.agentDid.startsWith("did:cdi:"), "such a secret names its agent");
      if (form.value.kind === "apiKey")
        must(form.value.secret.startsWith("spk_") && form.value.secret.length === 47, "a key has a key's form");
      return true;
    },
  }),
  target<string>({
    name: "conversation ids and reply addresses",
    weight: 2,
    acceptedAtLeast: 0.2,
    arbitrary: fc.oneof(
      fc.webUrl(),
      mutated(fc.webUrl({ validSchemes: ["https"] })),
      anyText,
      fc.constantFrom(
        "https://a@b",
        "https://a:b@c/",
        "https:/x",
        "HTTPS://x",
        "https://x\n",
        "javascript:1",
        `https://x/${"a".repeat(3_000)}`,
      ),
    ),
    holds(text) {
      if (isReplyTo(text)) {
        const url = new URL(text);
        must(
          (url.protocol === "https:" ||
            ["localhost", "[::1]"].includes(url.hostname) ||
            url.hostname.startsWith("127.")) &&
            url.username === "" &&
            url.password === "" &&
            text.length <= 2_048 &&
            !/[\s\p{Cc}]/u.test(text),
          "a reply address is a plain https URL",
        );
      }
      must(
        !isConversationId(text) ||
          (/\S/u.test(text) && Array.from(text).length <= 256 && !/[\p{Cc}\p{Cs}\p{Bidi_Control}]/u.test(text)),
        "a conversation id is short and can be seen",
      );
      return isReplyTo(text);
    },
  }),
  target<Record<string, unknown>>({
    name: "settings",
    weight: 2,
    acceptedAtLeast: 0.02,
    arbitrary: fc
      .tuple(
        fc.integer({ min: 0, max: 3 }),
        fc.dictionary(
          fc.constantFrom(...settings),
          fc.oneof(
            anyText,
            fc.constantFrom(
              "on",
              "off",
              "embedded",
              "0",
              "-1",
              "1e3",
              "0x10",
              "600",
              "https://registry.example.com",
              "a".repeat(40),
            ),
            fc.integer(),
            fc.boolean(),
            fc.constantFrom(null, undefined, {}, []),
          ),
          { maxKeys: 17 },
        ),
      )
      .map(([most, some]) =>
        most === 0 ? some : { ...GOOD_SETTINGS, ...Object.fromEntries(Object.entries(some).slice(0, most)) },
      ),
    holds(source) {
      const config = parseConfig(source);
      if (!config.ok) {
        for (const { problem } of config.error)
          must(
            !Object.values(source).some(
              (value) => typeof value === "string" && value.length >= 32 && problem.includes(value),
            ),
            "a problem does not name a secret",
          );
        return false;
      }
      const { value } = config;
      must(
        value.operatorTokens.every((token) => token.length >= 32),
        "no short operator token",
      );
      must(
        value.skewMaxSeconds >= 1 &&
          value.skewMaxSeconds <= 3_600 &&
          value.relayQueueMax >= 1 &&
          value.rateLimitPerAgent >= 0 &&
          value.relayRetryJitterRatio <= 0.5,
        "every number is within its bounds",
      );
      must(
        Object.values(value).every((member) => typeof member !== "number" || Number.isFinite(member)),
        "every number is one",
      );
      must(
        value.registryUrl === "embedded" || /^https?:$/.test(new URL(value.registryUrl).protocol),
        "the registry is embedded or a URL",
      );
      return true;
    },
  }),
];

/** An assertion of Cloudflare Access comes where an operator may. */
function kindOf<K extends string>(kind: K): Exclude<K, "access"> | "operator" {
  return kind === "access" ? "operator" : (kind as Exclude<K, "access">);
}
