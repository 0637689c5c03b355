/** Settings → Config: each with its unit, its default and its bounds (contract §6). Parsed once an isolate; nothing is guessed. */
import { readGraphSettings } from "./wire/graph-address.ts";
import { OPERATOR_ROLES, type OperatorRole } from "./wire/operator-role.ts";
import { isOrigin } from "./wire/origin.ts";
import { err, ok, type Result } from "./wire/result.ts";
import { parseUrl } from "./wire/url.ts";

/** `off`, `on`, or the tenants it is on for. */
export type TenantSwitch = "off" | "on" | readonly string[];

export type Config = {
  readonly registryUrl: string;
  readonly registryIssuer: string;
  /** Host name of the issuer: the authority of every DID that this installation knows. */
  readonly registryAuthority: string;
  /** Whether this is a machine of somebody who tries it, where an issuer that is nobody's does no harm. */
  readonly development: boolean;
  readonly registrySigningSecret: string | null;
  readonly registryTimeoutMs: number;
  readonly authDeadlineMs: number;
  readonly storeTimeoutMs: number;
  readonly keysTtlMs: number;
  readonly keysMaxStaleMs: number;
  readonly crlRefreshMs: number;
  readonly crlMaxAgeMs: number;
  readonly crlStaleBehavior: "fail-closed" | "fail-open";
  readonly accessTtlMs: number;
  readonly accessMaxStaleMs: number;
  readonly trustTtlMs: number;
  readonly trustMaxStaleMs: number;
  readonly breakerFailures: number;
  readonly breakerWindowMs: number;
  readonly breakerOpenMs: number;
  readonly skewMaxSeconds: number;
  readonly skewWarnSeconds: number;
  /** The form of pairing tickets that are issued; both are accepted. */
  readonly pairTickets: "opaque" | "clawdentity";
  readonly proofV1: "accept" | "refuse";
  /** Hosts that V2 proofs may name beside the one the Worker was called by; lower case, a default port left out. */
  readonly publicAuthorities: readonly string[];
  readonly relayOutboxMax: number;
  readonly relayBatchMs: number;
  readonly relayQueueMax: number;
  readonly relayQueueTtlMs: number;
  readonly relayRetryInitialMs: number;
  readonly relayRetryMaxMs: number;
  readonly relayRetryJitterRatio: number;
  readonly relayRetryMaxAttempts: number;
  readonly relayAllowedOrigins: readonly string[];
  readonly deadLetterRetentionMs: number;
  readonly auditRetentionMs: number;
  readonly deviceTokenTtlMs: number;
  readonly rateLimitPerAgent: number;
  readonly quotaTasksPerAgent: number;
  readonly quotaKeysPerAgent: number;
  readonly quotaBytesPerTenant: number;
  readonly rateLimitPerIp: boolean;
  readonly metrics: boolean;
  readonly fgacTasksDualWrite: TenantSwitch;
  readonly fgacAgentApiKeysDualWrite: TenantSwitch;
  readonly fgacEnforce: boolean;
  readonly authzGraph: string;
  /** Sent to a remote graph as a bearer token; null: none. */
  readonly authzGraphToken: string | null;
  /** The id of OpenFGA's authorization model; null: the newest. */
  readonly authzGraphModel: string | null;
  readonly operatorTokens: readonly string[];
  /** Null where no assertion of Cloudflare Access counts. */
  readonly access: AccessSettings | null;
};

/** Cloudflare Access in front of the console. */
export type AccessSettings = {
  /** Host of the team: who issues assertions. */
  readonly teamDomain: string;
  /** The tag of the one application whose assertions count. */
  readonly audience: string;
  /** By an address or a domain, in lower case. */
  readonly roles: ReadonlyMap<string, OperatorRole>;
};

/** One setting that cannot be used, by its name, with what is wrong. Never carries the value of a secret. */
export type SettingProblem = { setting: string; problem: string };

type Source = Record<string, unknown>;

const DAY_MS = 86_400_000;
/** A proof is verified once for each, until one fits. */
const AUTHORITIES_MAX = 4;

/**
 * Reads every setting from the Worker's bindings.
 *
 * @returns the settings, or every problem found, each naming its setting.
 */
export function parseConfig(source: Source): Result<Config, SettingProblem[]> {
  const problems: SettingProblem[] = [];
  const refuse: Refuse = (setting, problem) => void problems.push({ setting, problem });
  const config = readSettings(settingReader(source, refuse), refuse);
  checkTogether(config, refuse);
  return problems.length === 0 ? ok(config) : err(problems);
}

type Refuse = (setting: string, problem: string) => void;

/** Reads one setting each, by its form; what does not have it is refused by name, and the fallback stands in its place. */
type SettingReader = {
  isSet(setting: string): boolean;
  /** Text without the white space around it; null where nothing is set. */
  text(setting: string): string | null;
  integer(setting: string, fallback: number, min: number, max: number): number;
  decimal(setting: string, fallback: number, min: number, max: number, form: RegExp, kind: string): number;
  oneOf<T extends string>(setting: string, fallback: T, allowed: readonly T[]): T;
  httpUrl(setting: string, value: string): string;
  tenants(setting: string): TenantSwitch;
  /** At least 32 characters; null where none is set. */
  secret(setting: string): string | null;
  /** Values by commas, each of the same form. */
  list(setting: string, isOne: (text: string) => boolean, what: string, max?: number): string[];
};

function settingReader(source: Source, refuse: Refuse): SettingReader {
  const isSet = (setting: string): boolean => ![undefined, null, ""].includes(source[setting] as null);

  const text = (setting: string): string | null => {
    const value = source[setting];
    if (!isSet(setting)) return null;
    if (typeof value === "string") return value.trim();
    if (typeof value === "number" || typeof value === "boolean") return String(value);
    refuse(setting, "must be text");
    return null;
  };

  const decimal = (setting: string, fallback: number, min: number, max: number, form: RegExp, kind: string): number => {
    const value = text(setting);
    if (value === null) return fallback;
    const parsed = Number(value);
    if (!form.test(value) || !Number.isFinite(parsed) || parsed < min || parsed > max) {
      refuse(setting, `must be ${kind} from ${min} to ${max}`);
      return fallback;
    }
    return parsed;
  };
  const integer = (setting: string, fallback: number, min: number, max: number): number =>
    decimal(setting, fallback, min, max, /^\d{1,15}$/, "a whole number");

  const oneOf = <T extends string>(setting: string, fallback: T, allowed: readonly T[]): T => {
    const value = text(setting);
    if (value === null) return fallback;
    const found = allowed.find((candidate) => candidate === value);
    if (found === undefined) refuse(setting, `must be one of ${allowed.join(", ")}`);
    return found ?? fallback;
  };

  const httpUrl = (setting: string, value: string): string => {
    const url = URL.canParse(value) ? new URL(value) : null;
    const isPlain = url !== null && url.username === "" && url.password === "" && url.hash === "";
    if (!isPlain || (url.protocol !== "https:" && url.protocol !== "http:")) {
      refuse(setting, "must be an http(s) URL without credentials or fragment");
    }
    return value.replace(/\/+$/, "");
  };

  const tenants = (setting: string): TenantSwitch => {
    const value = text(setting);
    if (value === null || value === "off") return "off";
    if (value === "on") return "on";
    const list = value.split(",").map((tenant) => tenant.trim());
    if (list.some((tenant) => !/^[A-Za-z0-9._-]{1,128}$/.test(tenant))) {
      refuse(setting, "must be off, on, or tenant ids separated by commas");
    }
    return list;
  };

  const secret = (setting: string): string | null => {
    const value = source[setting];
    if (!isSet(setting)) return null;
    if (typeof value !== "string" || value.length < 32) {
      refuse(setting, "must be at least 32 characters");
      return null;
    }
    return value;
  };

  const list = (setting: string, isOne: (text: string) => boolean, what: string, max = Infinity): string[] => {
    const values = (text(setting) ?? "").split(",").map((value) => value.trim());
    const given = values.filter((value) => value !== "");
    if (given.length > max || !given.every(isOne)) refuse(setting, `must be ${what}, separated by commas`);
    return given;
  };

  return { isSet, text, integer, decimal, oneOf, httpUrl, tenants, secret, list };
}

/** Every setting with its default and its bounds (contract §6). */
function readSettings(read: SettingReader, refuse: Refuse): Config {
  const { isSet, text, integer, decimal, oneOf, httpUrl, tenants, secret, list } = read;
  const issuer = text("REGISTRY_ISSUER");
  if (issuer === null) refuse("REGISTRY_ISSUER", "is required");
  else if (!isIssuer(issuer)) {
    refuse("REGISTRY_ISSUER", "must be an http(s) URL whose host is a lower-case DNS name of two labels or more");
  }
  const registry = text("REGISTRY_URL") ?? "embedded";
  const signingSecret = secret("REGISTRY_SIGNING_SECRET");
  if (registry === "embedded" && !isSet("REGISTRY_SIGNING_SECRET"))
    refuse("REGISTRY_SIGNING_SECRET", "is required while the registry is embedded");
  return {
    registryUrl: registry === "embedded" ? registry : httpUrl("REGISTRY_URL", registry),
    registryIssuer: issuer ?? "",
    registryAuthority: parseUrl(issuer ?? "")?.hostname ?? "",
    registrySigningSecret: signingSecret,
    registryTimeoutMs: integer("REGISTRY_TIMEOUT_MS", 5_000, 100, 30_000),
    authDeadlineMs: integer("AUTH_DEADLINE_MS", 5_000, 500, 30_000),
    storeTimeoutMs: integer("STORE_TIMEOUT_MS", 2_000, 100, 10_000),
    keysTtlMs: integer("KEYS_TTL_MS", 3_600_000, 1_000, DAY_MS),
    keysMaxStaleMs: integer("KEYS_MAX_STALE_MS", DAY_MS, 1_000, 7 * DAY_MS),
    crlRefreshMs: integer("CRL_REFRESH_MS", 300_000, 1_000, DAY_MS),
    crlMaxAgeMs: integer("CRL_MAX_AGE_MS", 1_800_000, 1_000, 7 * DAY_MS),
    crlStaleBehavior: oneOf("CRL_STALE_BEHAVIOR", "fail-closed", ["fail-closed", "fail-open"]),
    accessTtlMs: integer("ACCESS_TTL_MS", 60_000, 1_000, 60_000),
    accessMaxStaleMs: integer("ACCESS_MAX_STALE_MS", 900_000, 1_000, DAY_MS),
    trustTtlMs: integer("TRUST_TTL_MS", 90_000, 1_000, 120_000),
    trustMaxStaleMs: integer("TRUST_MAX_STALE_MS", 900_000, 1_000, DAY_MS),
    breakerFailures: integer("BREAKER_FAILURES", 5, 1, 1_000),
    breakerWindowMs: integer("BREAKER_WINDOW_MS", 60_000, 1_000, 3_600_000),
    breakerOpenMs: integer("BREAKER_OPEN_MS", 30_000, 100, 3_600_000),
    skewMaxSeconds: integer("SKEW_MAX_SECONDS", 300, 1, 3_600),
    skewWarnSeconds: integer("SKEW_WARN_SECONDS", 200, 0, 3_600),
    pairTickets: oneOf("PAIR_TICKETS", "opaque", ["opaque", "clawdentity"]),
    proofV1: oneOf("PROOF_V1", "accept", ["accept", "refuse"]),
    publicAuthorities: list(
      "PUBLIC_AUTHORITIES",
      isAuthority,
      `up to ${AUTHORITIES_MAX} hosts such as gate.example.com`,
      AUTHORITIES_MAX,
    ),
    relayOutboxMax: integer("RELAY_OUTBOX_MAX", 500, 1, 10_000),
    relayBatchMs: integer("RELAY_BATCH_MS", 0, 0, 1_000),
    relayQueueMax: integer("RELAY_QUEUE_MAX", 500, 1, 10_000),
    relayQueueTtlMs: integer("RELAY_QUEUE_TTL_MS", 3_600_000, 1_000, 7 * DAY_MS),
    relayRetryInitialMs: integer("RELAY_RETRY_INITIAL_MS", 1_000, 10, 60_000),
    relayRetryMaxMs: integer("RELAY_RETRY_MAX_MS", 30_000, 10, 3_600_000),
    relayRetryJitterRatio: decimal("RELAY_RETRY_JITTER_RATIO", 0.2, 0, 0.5, /^\d(\.\d{1,6})?$/, "a number"),
    relayRetryMaxAttempts: integer("RELAY_RETRY_MAX_ATTEMPTS", 25, 1, 1_000),
    relayAllowedOrigins: list(
      "RELAY_ALLOWED_ORIGINS",
      isOrigin,
      "exact origins such as https://app.example.com or tauri://localhost",
    ),
    deadLetterRetentionMs: integer("DEAD_LETTER_RETENTION_MS", 7 * DAY_MS, 60_000, 90 * DAY_MS),
    auditRetentionMs: integer("AUDIT_RETENTION_MS", 365 * DAY_MS, DAY_MS, 3_650 * DAY_MS),
    deviceTokenTtlMs: integer("DEVICE_TOKEN_TTL_MS", 90 * DAY_MS, 60_000, 365 * DAY_MS),
    rateLimitPerAgent: integer("RATE_LIMIT_PER_AGENT", 600, 0, 1_000_000),
    quotaTasksPerAgent: integer("QUOTA_TASKS_PER_AGENT", 10_000, 1, 10_000_000),
    quotaKeysPerAgent: integer("QUOTA_KEYS_PER_AGENT", 1_000, 1, 1_000_000),
    quotaBytesPerTenant: integer("QUOTA_BYTES_PER_TENANT", 1_073_741_824, 1_048_576, 1_099_511_627_776),
    rateLimitPerIp: oneOf("RATE_LIMIT_PER_IP", "on", ["on", "off"]) === "on",
    development: oneOf("DEVELOPMENT", "off", ["on", "off"]) === "on",
    metrics: oneOf("METRICS", "on", ["on", "off"]) === "on",
    fgacTasksDualWrite: tenants("FGAC_TASKS_DUAL_WRITE"),
    fgacAgentApiKeysDualWrite: tenants("FGAC_AGENT_API_KEYS_DUAL_WRITE"),
    fgacEnforce: oneOf("FGAC_ENFORCE", "off", ["on", "off"]) === "on",
    ...readGraphSettings(text, refuse),
    access: readAccess(read, refuse),
    operatorTokens: ["OPERATOR_TOKEN", "OPERATOR_TOKEN_NEXT"].map(secret).filter((token) => token !== null),
  };
}

/** The three settings of Cloudflare Access; null where none of it counts. */
function readAccess({ text, list }: SettingReader, refuse: Refuse): AccessSettings | null {
  const teamDomain = text("ACCESS_TEAM_DOMAIN");
  const audience = text("ACCESS_AUD");
  const given = list("ACCESS_ROLES", isAccessRole, "email-or-domain=role");
  if (teamDomain !== null && !isDnsName(teamDomain))
    refuse("ACCESS_TEAM_DOMAIN", "must be a lower-case host name such as team.cloudflareaccess.com");
  if (audience !== null && !/^[A-Za-z0-9_-]{16,256}$/.test(audience))
    refuse("ACCESS_AUD", "must be the application's audience tag");
  const pairs = given.map((pair): [string, OperatorRole] => {
    const at = pair.lastIndexOf("=");
    return [pair.slice(0, at).toLowerCase(), pair.slice(at + 1) as OperatorRole];
  });
  const roles = new Map(pairs);
  if (roles.size < pairs.length) refuse("ACCESS_ROLES", "names somebody twice");
  if (teamDomain !== null && audience !== null) return { teamDomain, audience, roles };
  if (teamDomain === null && audience !== null) refuse("ACCESS_TEAM_DOMAIN", "is required beside ACCESS_AUD");
  if (audience === null && teamDomain !== null) refuse("ACCESS_AUD", "is required beside ACCESS_TEAM_DOMAIN");
  if (audience === null && teamDomain === null && given.length > 0)
    refuse("ACCESS_ROLES", "means nothing without ACCESS_TEAM_DOMAIN and ACCESS_AUD");
  return null;
}

function isAccessRole(pair: string): boolean {
  const [, who = "", role = ""] = /^(?:[^\s@=]{1,64}@)?([^\s@=]+)=([a-z]+)$/.exec(pair) ?? [];
  return isDnsName(who.toLowerCase()) && (OPERATOR_ROLES as readonly string[]).includes(role);
}

/** What no setting is by itself, and two are beside each other. */
function checkTogether(config: Config, refuse: Refuse): void {
  const notShorter = (longer: string, longerValue: number, shorter: string, shorterValue: number): void => {
    if (longerValue < shorterValue) refuse(longer, `must not be shorter than ${shorter}`);
  };
  notShorter("KEYS_MAX_STALE_MS", config.keysMaxStaleMs, "KEYS_TTL_MS", config.keysTtlMs);
  notShorter("CRL_MAX_AGE_MS", config.crlMaxAgeMs, "CRL_REFRESH_MS", config.crlRefreshMs);
  notShorter("ACCESS_MAX_STALE_MS", config.accessMaxStaleMs, "ACCESS_TTL_MS", config.accessTtlMs);
  notShorter("TRUST_MAX_STALE_MS", config.trustMaxStaleMs, "TRUST_TTL_MS", config.trustTtlMs);
  notShorter("RELAY_RETRY_MAX_MS", config.relayRetryMaxMs, "RELAY_RETRY_INITIAL_MS", config.relayRetryInitialMs);
  if (config.fgacEnforce && (config.fgacTasksDualWrite !== "on" || config.fgacAgentApiKeysDualWrite !== "on")) {
    refuse(
      "FGAC_ENFORCE",
      "is on without FGAC_TASKS_DUAL_WRITE and FGAC_AGENT_API_KEYS_DUAL_WRITE being on for everyone",
    );
  }
}

/** Whether a text is a host as `@authority` has it: lower case, a port only where it is not the default. */
function isAuthority(value: string): boolean {
  return URL.canParse(`https://${value}/`) && new URL(`https://${value}/`).host === value;
}

function isIssuer(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  const http = url.protocol === "https:" || url.protocol === "http:";
  return http && url.username === "" && url.password === "" && isDnsName(url.hostname);
}

/** In lower case, of two labels or more. */
function isDnsName(text: string): boolean {
  const label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
  return text.length <= 253 && new RegExp(`^${label}(\\.${label})+$`).test(text);
}

/** Whether a switch is on for a tenant. */
export function isOnFor(setting: TenantSwitch, tenantId: string): boolean {
  return setting === "on" || (setting !== "off" && setting.includes(tenantId));
}
