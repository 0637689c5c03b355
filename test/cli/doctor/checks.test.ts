import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { newInnerRunner } from "../program.ts";
import { setUp } from "../registered-agent.ts";
import { VERSION } from "../../../src/wire/version.ts";
import { ait, type Answering, PEER_DID, problem, startRegistry } from "../registry-server.ts";

const bare503: Answering = () => ({ status: 503, text: "" });

describe("doctor", () => {
  type Report = {
    healthy: boolean;
    findings: { check: string; verdict: string; detail: string; advice: string | null }[];
  };
  const report = async (override?: Answering, members: Record<string, unknown> = {}) => {
    const { runner, change } = await setUp(override);
    await change(members);
    const ended = await runner.run(["doctor", "--json"]);
    const { healthy, findings } = JSON.parse(ended.out) as Report;
    const verdicts = Object.fromEntries(findings.map(({ check, verdict }) => [check, verdict]));
    return { code: ended.code, healthy, verdicts, findings };
  };

  test("finds nothing wrong where nothing is", async () => {
    const { code, healthy, verdicts } = await report();
    expect({ code, healthy }).toEqual({ code: 0, healthy: true });
    expect(new Set(Object.values(verdicts))).toEqual(new Set(["ok"]));
  });

  test.each([
    [VERSION, "ok"],
    ["99.0.0", "warn"],
  ])("says of a server of version %s: %s", async (version, verdict) => {
    const { code, verdicts, findings } = await report(({ path }) =>
      path === "/health" ? { json: { status: "ok", version } } : undefined,
    );
    expect([code, verdicts["version"]]).toEqual([0, verdict]);
    expect(findings.find(({ check }) => check === "version")?.detail).toContain(version);
  });

  test.each([
    [
      "a server that is not there",
      "reachable",
      ({ path }: { path: string }) => (path === "/health" ? problem(503, "X") : undefined),
    ],
    [
      "a clock that is an hour off",
      "clock",
      ({ path }: { path: string }) => (path === "/v1/time" ? { json: { unixMs: Date.now() + 3_600_000 } } : undefined),
    ],
    [
      "an agent that was revoked",
      "Scout: access",
      ({ path }: { path: string }) => (path === "/pair/peers" ? problem(401, "PROXY_AUTH_REVOKED") : undefined),
    ],
  ] as const)("finds %s", async (_what, check, override) => {
    const { code, verdicts, findings } = await report(override);
    expect(code).toBe(7);
    expect(verdicts[check]).toBe("fail");
    expect(findings.find((each) => each.check === check)?.advice).not.toBeNull();
  });

  test.each([
    ["an identity token that has expired", { ait: ait("x", -10) }, "Scout: identity token"],
    [
      "an identity token of another key",
      { ait: ait("3A0f8KndW1cZ594vKIIewPFhEfQsGMb7GM2XYJkdwYU", 1_000_000) },
      "Scout: identity token",
    ],
    [
      "a key whose halves do not belong together",
      {
        keys: {
          kty: "OKP",
          crv: "Ed25519",
          x: "3A0f8KndW1cZ594vKIIewPFhEfQsGMb7GM2XYJkdwYU",
          d: "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA",
        },
      },
      "Scout: keys",
    ],
  ])("finds %s", async (_what, members, check) => {
    const { code, verdicts } = await report(undefined, members);
    expect(code).toBe(7);
    expect(verdicts[check]).toBe("fail");
  });

  test.each([
    [
      "a server that is not ready",
      "ready",
      ({ path }: { path: string }) => (path === "/ready" ? problem(503, "X") : undefined),
    ],
    [
      "an agent that no other trusts",
      "Scout: trust",
      ({ path }: { path: string }) => (path === "/pair/peers" ? { json: { peers: [] } } : undefined),
    ],
    [
      "a clock that is a minute off",
      "clock",
      ({ path }: { path: string }) => (path === "/v1/time" ? { json: { unixMs: Date.now() - 60_000 } } : undefined),
    ],
  ] as const)("warns of %s", async (_what, check, override) => {
    const { code, verdicts } = await report(override);
    expect(code).toBe(0);
    expect(verdicts[check]).toBe("warn");
  });

  test.each([200, 503])("finds a registry that can sign nothing, and says what to do (%d)", async (status) => {
    const dependencies = { keys: { usable: true }, signing: { usable: false } };
    const { code, findings } = await report(({ path }) =>
      path === "/ready" ? { status, json: { status: "unavailable", dependencies } } : undefined,
    );
    expect(code).toBe(7);
    expect(findings.find(({ check }) => check === "signing")).toMatchObject({
      verdict: "fail",
      advice: expect.stringContaining("REGISTRY_SIGNING_SECRET") as string,
    });
  });

  test("names what a server that is not ready lacks", async () => {
    const dependencies = { keys: { usable: false }, crl: { usable: true }, trust: { database: "failing" } };
    const { findings } = await report(({ path }) =>
      path === "/ready" ? { status: 503, json: { status: "unavailable", dependencies } } : undefined,
    );
    expect(findings.find(({ check }) => check === "ready")?.detail).toContain("keys, trust");
  });

  const SETTINGS = 'REGISTRY_ISSUER = "https://registry.example.com"';
  const SECRETS = `REGISTRY_SIGNING_SECRET="${"s".repeat(32)}"`;
  /** What `doctor` says in a checkout with these settings and secrets. */
  async function reportIn(settings: string, secrets: string, override?: Answering, project = "sallyport") {
    const { url } = await startRegistry(override);
    const runner = await newInnerRunner();
    await runner.json(["init", "--url", url, "--no-check"]);
    await writeFile(join(runner.workingFolder, "package.json"), JSON.stringify({ name: project }, null, 2));
    await writeFile(join(runner.workingFolder, "wrangler.toml"), `name = "sallyport"\n[vars]\n${settings}\n`);
    await writeFile(join(runner.workingFolder, ".dev.vars"), secrets);
    const { findings } = JSON.parse((await runner.run(["doctor", "--json"])).out) as Report;
    return findings.filter(({ check }) => check === "settings of the checkout");
  }

  test("names the bad setting of a server that only says 503, and the file to correct it in", async () => {
    expect(await reportIn(`${SETTINGS}\nSKEW_MAX_SECONDS = "soon"`, SECRETS, bare503)).toMatchObject([
      {
        verdict: "fail",
        detail: expect.stringContaining("SKEW_MAX_SECONDS must be a whole number") as string,
        advice: expect.stringContaining("wrangler.toml") as string,
      },
    ]);
    expect(await reportIn(SETTINGS, 'REGISTRY_SIGNING_SECRET="short"', bare503)).toMatchObject([
      {
        verdict: "fail",
        detail: expect.stringContaining("REGISTRY_SIGNING_SECRET") as string,
        advice: expect.stringContaining(".dev.vars") as string,
      },
    ]);
  });

  test("warns of a bad setting that the running server does not have", async () => {
    expect(await reportIn(`${SETTINGS}\nRELAY_QUEUE_MAX = 0`, SECRETS)).toMatchObject([{ verdict: "warn" }]);
  });

  test("reads secrets behind a byte order mark", async () => {
    expect(await reportIn(SETTINGS, `\ufeff${SECRETS}`, bare503)).toMatchObject([{ verdict: "ok" }]);
  });

  test("has nothing to say of settings that are good, and of projects that are others", async () => {
    expect(await reportIn(SETTINGS, SECRETS)).toMatchObject([{ verdict: "ok" }]);
    expect(await reportIn("", "", undefined, "other")).toEqual([]);
  });

  test("says that a wrangler.toml is none", async () => {
    expect(await reportIn("= =", SECRETS, bare503)).toMatchObject([{ verdict: "fail" }]);
  });

  test("looks at the devices: a missing token, one that has ended, and a key of another", async () => {
    const { runner } = await setUp(({ path }) =>
      path === "/rpc" ? problem(401, "PROXY_AUTH_CLIENT_INVALIDATED") : undefined,
    );
    await runner.json(["device", "key", "phone", "--of", PEER_DID]);
    const verdictOf = async (check: string) => {
      const { findings } = JSON.parse((await runner.run(["doctor", "--json"])).out) as Report;
      return findings.find((each) => each.check === `device phone: ${check}`);
    };
    expect(await verdictOf("token")).toMatchObject({
      verdict: "warn",
      advice: expect.stringContaining("claim") as string,
    });
    const file = join(runner.home, "devices/phone.json");
    const stored = JSON.parse(await readFile(file, "utf8")) as object;
    await writeFile(file, JSON.stringify({ ...stored, token: "spd_x" }));
    expect(await verdictOf("token")).toMatchObject({
      verdict: "fail",
      advice: expect.stringContaining("claim") as string,
    });
    await writeFile(file, JSON.stringify({ ...stored, deviceId: "D".repeat(22) }));
    expect(await verdictOf("key")).toMatchObject({ verdict: "fail" });
  });
});
