/** Every setting: its default, its bounds, what contradicts, and that the document says the same as the code. */
import { describe, expect, test } from "vitest";
import document from "../docs/operations.md?raw";
import { isOnFor, parseConfig, type Config } from "../src/config.ts";

const REQUIRED = {
  REGISTRY_ISSUER: "https://registry.example.com",
  REGISTRY_SIGNING_SECRET: "a-signing-secret-of-32-characters",
};
const SECRET = "0123456789abcdef0123456789abcdef";

type Row = { setting: string; initial: string; bounds: string; meaning: string };

/** The rows of the document's tables of settings. */
const rows: Row[] = [...document.matchAll(/^\| `([A-Z][A-Z0-9_]+)` +\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm)].map(
  ([, setting = "", initial = "", bounds = "", meaning = ""]) => ({
    setting,
    initial: initial.trim().replaceAll("`", ""),
    bounds: bounds.trim(),
    meaning,
  }),
);
const ranges = rows.flatMap((row) => {
  const range = /^([\d.,]+) – ([\d.,]+)$/.exec(row.bounds);
  return range === null ? [] : [{ ...row, initial: plain(row.initial), min: plain(range[1]), max: plain(range[2]) }];
});
const choices = rows.flatMap((row) => {
  const choice = /^`([a-z-]+)` or `([a-z-]+)`$/.exec(row.bounds);
  return choice === null ? [] : [{ ...row, options: choice.slice(1) }];
});

describe("settings", () => {
  test("need no more than an issuer and, while the registry is embedded, its secret", () => {
    expect(problemsOf({})).toEqual(["REGISTRY_ISSUER", "REGISTRY_SIGNING_SECRET"]);
    expect(problemsOf(REQUIRED)).toEqual([]);
    expect(
      problemsOf({ REGISTRY_ISSUER: REQUIRED.REGISTRY_ISSUER, REGISTRY_URL: "https://registry.example.com" }),
    ).toEqual([]);
  });

  test("are all in the document, and the document names no others", () => {
    const read = new Set<string>();
    const everything = new Proxy<Record<string, unknown>>({}, { get: (_, name) => void read.add(String(name)) });
    parseConfig(everything);
    expect(rows.map(({ setting }) => setting).toSorted()).toEqual([...read].toSorted());
    expect(ranges.length + choices.length).toBeGreaterThan(25);
  });

  test.each(ranges)(
    "$setting is $initial by default, from $min to $max, and refused by name beyond",
    ({ setting, initial, min, max }) => {
      expect(configOf({})[fieldOf(setting)]).toBe(initial);
      for (const bound of [min, max]) {
        const parsed = parseConfig({ ...REQUIRED, ...companions(setting, bound), [setting]: String(bound) });
        expect(parsed.ok ? parsed.value[fieldOf(setting)] : parsed.error).toBe(bound);
      }
      for (const beyond of [min - 1, max + 1, `${min}x`, "-0", "1e3", "NaN", "0x10", "ten", "1 000", {}]) {
        expect(problemsOf({ ...REQUIRED, ...companions(setting, min), [setting]: beyond })).toContain(setting);
      }
    },
  );

  test.each(choices)("$setting is $initial by default and takes $options alone", ({ setting, initial, options }) => {
    const field = fieldOf(setting);
    const on = { FGAC_TASKS_DUAL_WRITE: "on", FGAC_AGENT_API_KEYS_DUAL_WRITE: "on" };
    expect(configOf({ [setting]: initial })[field]).toEqual(configOf({})[field]);
    const values = options.map((option) => configOf({ ...on, [setting]: option })[field]);
    expect(new Set(values).size).toBe(options.length);
    for (const other of ["yes", "ON", "true", "none", 1])
      expect(problemsOf({ ...REQUIRED, [setting]: other })).toEqual([setting]);
  });

  test.each([
    ["KEYS_MAX_STALE_MS", "KEYS_TTL_MS"],
    ["CRL_MAX_AGE_MS", "CRL_REFRESH_MS"],
    ["ACCESS_MAX_STALE_MS", "ACCESS_TTL_MS"],
    ["TRUST_MAX_STALE_MS", "TRUST_TTL_MS"],
    ["RELAY_RETRY_MAX_MS", "RELAY_RETRY_INITIAL_MS"],
  ])("%s shorter than %s is refused by name", (longer, shorter) => {
    const parsed = parseConfig({ ...REQUIRED, [longer]: "1000", [shorter]: "1001" });
    expect(parsed).toEqual({ ok: false, error: [{ setting: longer, problem: expect.stringContaining(shorter) }] });
    expect(problemsOf({ ...REQUIRED, [longer]: "1001", [shorter]: "1001" })).toEqual([]);
  });

  test.each([
    [{}, ["FGAC_ENFORCE"]],
    [{ FGAC_TASKS_DUAL_WRITE: "on" }, ["FGAC_ENFORCE"]],
    [{ FGAC_AGENT_API_KEYS_DUAL_WRITE: "on" }, ["FGAC_ENFORCE"]],
    [{ FGAC_TASKS_DUAL_WRITE: "acme", FGAC_AGENT_API_KEYS_DUAL_WRITE: "on" }, ["FGAC_ENFORCE"]],
    [{ FGAC_TASKS_DUAL_WRITE: "on", FGAC_AGENT_API_KEYS_DUAL_WRITE: "on" }, []],
  ])("FGAC_ENFORCE beside %o: %o is refused", (dualWrite, refused) => {
    expect(problemsOf({ ...REQUIRED, FGAC_ENFORCE: "on", ...dualWrite })).toEqual(refused);
  });

  test.each([
    "registry.example.com",
    "ftp://registry.example.com",
    "https://localhost",
    "https://REGISTRY_.example.com",
    "https://user@registry.example.com",
    "https://-a.example.com",
  ])("the issuer %s is refused", (issuer) => {
    expect(problemsOf({ ...REQUIRED, REGISTRY_ISSUER: issuer })).toEqual(["REGISTRY_ISSUER"]);
  });

  test.each([
    ["openfga+https://fga.example.com/stores/01ARZ3NDEKTSV4RRFFQ69G5FAV", true],
    ["openfga+http://127.0.0.1:8080/stores/01ARZ3NDEKTSV4RRFFQ69G5FAV", true],
    ["openfga+http://fga.example.com/stores/01ARZ3NDEKTSV4RRFFQ69G5FAV", false],
    ["openfga+https://fga.example.com", false],
    ["openfga+https://fga.example.com/stores/one", false],
    ["openfga+https://user@fga.example.com/stores/01ARZ3NDEKTSV4RRFFQ69G5FAV", false],
    ["spicedb+https://spice.example.com", true],
    ["spicedb+http://localhost:8443", true],
    ["spicedb+http://spice.example.com", false],
    ["spicedb+https://spice.example.com/base", false],
    ["spicedb+ftp://spice.example.com", false],
    ["other+https://spice.example.com", false],
  ])("the graph %s is usable: %s", (setting, isGood) => {
    expect(problemsOf({ ...REQUIRED, AUTHZ_GRAPH: setting })).toEqual(isGood ? [] : ["AUTHZ_GRAPH"]);
  });

  test("a token is one header's worth, a model is an id and OpenFGA's, and OpenFGA's ids hold every agent's name", () => {
    const fga = { ...REQUIRED, AUTHZ_GRAPH: "openfga+https://fga.example.com/stores/01ARZ3NDEKTSV4RRFFQ69G5FAV" };
    const model = { AUTHZ_GRAPH_MODEL: "01ARZ3NDEKTSV4RRFFQ69G5FAV" };
    expect(problemsOf({ ...fga, ...model, AUTHZ_GRAPH_TOKEN: "t" })).toEqual([]);
    expect(problemsOf({ ...fga, AUTHZ_GRAPH_TOKEN: "two words" })).toEqual(["AUTHZ_GRAPH_TOKEN"]);
    expect(problemsOf({ ...fga, AUTHZ_GRAPH_MODEL: "newest" })).toEqual(["AUTHZ_GRAPH_MODEL"]);
    expect(problemsOf({ ...REQUIRED, ...model })).toEqual(["AUTHZ_GRAPH_MODEL"]);
    const long = `https://${`${"a".repeat(60)}.`.repeat(3)}example.com`;
    expect(problemsOf({ ...REQUIRED, REGISTRY_ISSUER: long })).toEqual([]);
    expect(problemsOf({ ...fga, REGISTRY_ISSUER: long })).toEqual(["AUTHZ_GRAPH"]);
  });

  test.each(["REGISTRY_URL", "AUTHZ_GRAPH"])("%s is a word or an http(s) URL without credentials", (setting) => {
    for (const good of ["https://other.example.com", "http://127.0.0.1:9000/base/"]) {
      expect(problemsOf({ ...REQUIRED, [setting]: good })).toEqual([]);
    }
    expect(configOf({ [setting]: "http://127.0.0.1:9000/base/" })[fieldOf(setting)]).toBe("http://127.0.0.1:9000/base");
    for (const bad of [
      "other",
      "file:///etc",
      "https://user@other.example.com",
      "https://:secret@other.example.com",
      "https://a.example.com/#b",
      "  ",
    ]) {
      expect(problemsOf({ ...REQUIRED, [setting]: bad })).toEqual([setting]);
    }
  });

  test.each(["FGAC_TASKS_DUAL_WRITE", "FGAC_AGENT_API_KEYS_DUAL_WRITE"])(
    "%s is off, on, or on for tenants",
    (setting) => {
      const field = setting === "FGAC_TASKS_DUAL_WRITE" ? "fgacTasksDualWrite" : "fgacAgentApiKeysDualWrite";
      expect([
        configOf({})[field],
        configOf({ [setting]: "off" })[field],
        configOf({ [setting]: "on" })[field],
      ]).toEqual(["off", "off", "on"]);
      const some = configOf({ [setting]: "acme, owner-01" })[field];
      expect(["acme", "owner-01", "other"].map((tenant) => isOnFor(some, tenant))).toEqual([true, true, false]);
      for (const bad of [",", "acme,,b", "a b", "*"])
        expect(problemsOf({ ...REQUIRED, [setting]: bad })).toEqual([setting]);
    },
  );

  test("RELAY_ALLOWED_ORIGINS are origins and nothing longer", () => {
    expect(configOf({}).relayAllowedOrigins).toEqual([]);
    expect(
      configOf({ RELAY_ALLOWED_ORIGINS: "https://a.example.com, http://localhost:3000,tauri://localhost" })
        .relayAllowedOrigins,
    ).toEqual(["https://a.example.com", "http://localhost:3000", "tauri://localhost"]);
    for (const exact of ["chrome-extension://abcdefghijklmnop", "vscode-webview://0e4b8c2e"]) {
      expect(configOf({ RELAY_ALLOWED_ORIGINS: exact }).relayAllowedOrigins).toEqual([exact]);
    }
    for (const bad of ["*", "a.example.com", "https://a.example.com/", "null", "tauri://localhost/", "tauri:x"]) {
      expect(problemsOf({ ...REQUIRED, RELAY_ALLOWED_ORIGINS: bad })).toEqual(["RELAY_ALLOWED_ORIGINS"]);
    }
  });

  test("ACCESS_TEAM_DOMAIN and ACCESS_AUD stand together, and ACCESS_ROLES gives roles that there are", () => {
    const both = { ACCESS_TEAM_DOMAIN: "team.cloudflareaccess.com", ACCESS_AUD: "f".repeat(64) };
    expect(configOf({}).access).toBeNull();
    expect(configOf(both).access).toEqual({
      teamDomain: both.ACCESS_TEAM_DOMAIN,
      audience: both.ACCESS_AUD,
      roles: new Map(),
    });
    const named = configOf({ ...both, ACCESS_ROLES: "Alice@Example.com=owner, example.com=viewer" }).access;
    expect([...(named?.roles ?? [])]).toEqual([
      ["alice@example.com", "owner"],
      ["example.com", "viewer"],
    ]);
    for (const [setting, value] of [
      ["ACCESS_TEAM_DOMAIN", "https://team.cloudflareaccess.com"],
      ["ACCESS_TEAM_DOMAIN", "team"],
      ["ACCESS_AUD", "short"],
      ["ACCESS_AUD", `${"f".repeat(64)},${"e".repeat(64)}`],
      ["ACCESS_ROLES", "alice@example.com"],
      ["ACCESS_ROLES", "alice@example.com=king"],
      ["ACCESS_ROLES", "*=owner"],
      ["ACCESS_ROLES", "example.com=viewer,Example.com=owner"],
    ] as const)
      expect(problemsOf({ ...REQUIRED, ...both, [setting]: value }), `${setting}=${value}`).toContain(setting);
    expect(problemsOf({ ...REQUIRED, ACCESS_AUD: both.ACCESS_AUD })).toEqual(["ACCESS_TEAM_DOMAIN"]);
    expect(problemsOf({ ...REQUIRED, ACCESS_TEAM_DOMAIN: both.ACCESS_TEAM_DOMAIN })).toEqual(["ACCESS_AUD"]);
    expect(problemsOf({ ...REQUIRED, ACCESS_ROLES: "example.com=owner" })).toEqual(["ACCESS_ROLES"]);
  });

  test.each(["OPERATOR_TOKEN", "OPERATOR_TOKEN_NEXT", "REGISTRY_SIGNING_SECRET"])(
    "%s has 32 characters or more, and a refusal does not show it",
    (setting) => {
      expect(problemsOf({ ...REQUIRED, [setting]: SECRET })).toEqual([]);
      const parsed = parseConfig({ ...REQUIRED, [setting]: SECRET.slice(1) });
      expect(parsed).toMatchObject({ ok: false, error: [{ setting }] });
      expect(JSON.stringify(parsed)).not.toContain(SECRET.slice(1));
    },
  );

  test("both operator tokens are taken while one replaces the other", () => {
    expect(configOf({}).operatorTokens).toEqual([]);
    expect(configOf({ OPERATOR_TOKEN: SECRET, OPERATOR_TOKEN_NEXT: `${SECRET}2` }).operatorTokens).toEqual([
      SECRET,
      `${SECRET}2`,
    ]);
  });

  test("every problem is told at once", () => {
    expect(problemsOf({ KEYS_TTL_MS: "soon", METRICS: "maybe" })).toEqual([
      "REGISTRY_ISSUER",
      "REGISTRY_SIGNING_SECRET",
      "KEYS_TTL_MS",
      "METRICS",
    ]);
  });
});

function plain(text: string | undefined): number {
  return Number((text ?? "").replaceAll(",", ""));
}

/** `KEYS_TTL_MS` → `keysTtlMs` */
function fieldOf(setting: string): keyof Config {
  return setting.toLowerCase().replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()) as keyof Config;
}

/** A bound must not be refused because of the setting that it must not be shorter or longer than. */
function companions(setting: string, value: number): Record<string, string> {
  const shorterThan: Record<string, string> = {
    KEYS_TTL_MS: "KEYS_MAX_STALE_MS",
    CRL_REFRESH_MS: "CRL_MAX_AGE_MS",
    ACCESS_TTL_MS: "ACCESS_MAX_STALE_MS",
    TRUST_TTL_MS: "TRUST_MAX_STALE_MS",
    RELAY_RETRY_INITIAL_MS: "RELAY_RETRY_MAX_MS",
  };
  const longer = shorterThan[setting];
  const shorter = Object.entries(shorterThan).find(([, name]) => name === setting)?.[0];
  const other = longer ?? shorter;
  const range = ranges.find((row) => row.setting === other);
  if (other === undefined || range === undefined) return {};
  return { [other]: String(Math.min(Math.max(value, range.min), range.max)) };
}

function configOf(source: Record<string, unknown>): Config {
  const parsed = parseConfig({ ...REQUIRED, ...source });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  return parsed.value;
}

function problemsOf(source: Record<string, unknown>): string[] {
  const parsed = parseConfig(source);
  return parsed.ok ? [] : parsed.error.map(({ setting }) => setting);
}
