/** Headers before anything is fetched, and settings before anything runs. */
import * as fc from "fast-check";
import { openDecision } from "../../../src/auth/decision.ts";
import { HOOK, readForm, type RouteNeeds } from "../../../src/auth/form.ts";
import { createTokenMemory } from "../../../src/auth/token.ts";
import { parseConfig } from "../../../src/config.ts";
import { isConversationId, isReplyTo } from "../../../src/wire/frames.ts";
import { agentDid, anyText, mutated } from "../arbitraries.ts";
import { must, target } from "../target.ts";

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

export const requests = [
  target<{ headers: Record<string, string>; route: number }>({
    name: "headers of a stranger",
    weight: 4,
    arbitrary: fc.record({ headers, route: fc.nat({ max: ROUTES.length - 1 }) }),
    holds({ headers: sent, route }) {
      let received: Headers;
      try {
        received = new Headers(sent);
      } catch (error) {
        // No HTTP library sends these.
        if (error instanceof TypeError) return;
        throw error;
      }
      const needs = ROUTES[route] ?? HOOK;
      const decision = openDecision(needs.route, NOW_MS);
      const form = readForm(
        received,
        needs,
        {
          tokens: createTokenMemory(),
          settings: { registryIssuer: "https://registry.example.com", skewMaxSeconds: 300 },
          nowMs: NOW_MS,
        },
        decision,
      );
      if (!form.ok) return;
      must(needs.accepts.includes(form.value.kind), "only what the route takes passes");
      must(form.value.kind !== "agent", "no identity token comes out of noise");
      if (form.value.kind === "device" || form.value.kind === "shared")
        must(form.value.agentDid.startsWith("did:cdi:"), "such a secret names its agent");
      if (form.value.kind === "apiKey")
        must(form.value.secret.startsWith("spk_") && form.value.secret.length === 47, "a key has a key's form");
    },
  }),
  target<string>({
    name: "conversation ids and reply addresses",
    weight: 2,
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
          url.protocol === "https:" &&
            url.username === "" &&
            url.password === "" &&
            text.length <= 2_048 &&
            !/[\s\p{Cc}]/u.test(text),
          "a reply address is a plain https URL",
        );
      }
      must(
        isConversationId(text) === (text.length >= 1 && text.length <= 256 && !/\p{Cc}/u.test(text)),
        "a conversation id is short and printable",
      );
    },
  }),
  target<Record<string, unknown>>({
    name: "settings",
    weight: 2,
    arbitrary: fc.dictionary(
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
        return;
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
    },
  }),
];
