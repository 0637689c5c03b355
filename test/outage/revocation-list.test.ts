import { afterEach, describe, expect, test, vi } from "vitest";
import { type Agent, FAULTS, MINUTE_MS, newHarness, SECOND_MS } from "./harness.ts";
import { eventually } from "../support/gate.ts";

vi.setConfig({ testTimeout: 60_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const REVOKED = "401 PROXY_AUTH_REVOKED";
const entryOf = (agent: Agent) => ({ jti: String(agent.claims["jti"]), agentDid: agent.did as string });

describe("the registry's revocation list is rolled back", () => {
  test("an older list, then none at all, bring no revoked agent back, here or in an isolate that starts then; both are security events", async () => {
    const harness = await newHarness();
    const isolate = harness.newIsolate();
    const [alice, mallory, bob] = [await harness.newAgent(), await harness.newAgent(), await harness.newAgent()];
    await harness.pair(alice, bob);
    await harness.pair(mallory, bob);
    harness.registry.revoked = [entryOf(mallory)];
    expect([await isolate.send(alice, bob), await isolate.send(mallory, bob)]).toEqual(["202", REVOKED]);

    const olderIat = harness.nowSeconds() - 3_600;
    harness.registry.crl = () => harness.registry.signedCrl({ iat: olderIat, revoked: [] });
    harness.pass(6 * MINUTE_MS);
    expect([await isolate.send(alice, bob), await isolate.send(mallory, bob)]).toEqual(["202", REVOKED]);
    await eventually(() =>
      expect(harness.linesOf("security.crl_rolled_back")).toMatchObject([{ level: "error", offeredIat: olderIat }]),
    );
    expect(await harness.newIsolate().send(mallory, bob)).toBe(REVOKED);

    harness.registry.crl = () => Response.json({ code: "CRL_NOT_FOUND" }, { status: 404 });
    harness.pass(6 * MINUTE_MS);
    expect([await isolate.send(alice, bob), await isolate.send(mallory, bob)]).toEqual(["202", REVOKED]);
    await eventually(() => expect(harness.linesOf("security.crl_withdrawn").length).toBeGreaterThan(0));
    expect(await harness.newIsolate().send(mallory, bob)).toBe(REVOKED);
  });

  test.each([
    ["fail-closed", "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE"],
    ["fail-open", "202"],
  ])(
    "past its maximum age of 30 minutes %s answers %s, the revoked stay out, and a warning a minute says so",
    async (behavior, expected) => {
      const harness = await newHarness({ CRL_STALE_BEHAVIOR: behavior });
      const isolate = harness.newIsolate();
      const [alice, mallory, bob] = [await harness.newAgent(), await harness.newAgent(), await harness.newAgent()];
      await harness.pair(alice, bob);
      harness.registry.revoked = [entryOf(mallory)];
      expect(await isolate.send(alice, bob)).toBe("202");
      harness.registry.fail(FAULTS.down, ["crl"]);
      harness.pass(29 * MINUTE_MS);
      expect(await isolate.send(alice, bob)).toBe("202");
      harness.pass(2 * MINUTE_MS);
      for (let n = 0; n < 5; n++) {
        harness.pass(SECOND_MS);
        // oxlint-disable-next-line no-await-in-loop -- a second after the other
        expect(await isolate.send(alice, bob)).toBe(expected);
      }
      expect(await isolate.send(mallory, bob)).toBe(behavior === "fail-open" ? REVOKED : expected);
      expect(harness.linesOf("registry.crl_too_old")).toHaveLength(1);
    },
  );
});

describe("keys are rotated while the registry is flapping", () => {
  test("agents under the old key never notice; one under the new key is 503 until a refresh gets through, one a 30 s at most", async () => {
    const harness = await newHarness();
    const isolate = harness.newIsolate();
    const [alice, bob] = [await harness.newAgent(), await harness.newAgent()];
    await harness.pair(alice, bob);
    expect(await isolate.send(alice, bob)).toBe("202");

    const { key, privateKey } = await harness.newKey("registry-key-2");
    const newcomer = await harness.newAgent({ kid: key.kid, key: privateKey });
    await harness.pair(newcomer, bob);
    harness.registry.keys.push(key);
    harness.registry.fail(FAULTS[500], ["keys"]);
    harness.registry.forgetCalls();
    for (let second = 0; second < 30; second += 5) {
      // oxlint-disable-next-line no-await-in-loop -- five seconds after the others
      expect([await isolate.send(alice, bob), await isolate.send(newcomer, bob)]).toEqual([
        "202",
        "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
      ]);
      harness.pass(5 * SECOND_MS);
    }
    expect(harness.registry.calls.keys).toBeLessThanOrEqual(2);
    harness.registry.fail(null, ["keys"]);
    harness.pass(5 * SECOND_MS);
    expect([await isolate.send(alice, bob), await isolate.send(newcomer, bob)]).toEqual(["202", "202"]);
  });

  test("a key seen revoked stays revoked though the registry swings back, here and in an isolate that starts in the outage", async () => {
    const harness = await newHarness();
    const isolate = harness.newIsolate();
    const [alice, bob] = [await harness.newAgent(), await harness.newAgent()];
    await harness.pair(alice, bob);
    const { key } = await harness.newKey("registry-key-2");
    harness.registry.keys.push(key);
    expect(await isolate.send(alice, bob)).toBe("202");

    const [first] = harness.registry.keys;
    first!.status = "revoked";
    harness.pass(61 * MINUTE_MS);
    await isolate.send(alice, bob);
    await eventually(async () => expect(await isolate.send(alice, bob)).toBe("401 PROXY_AUTH_INVALID_AIT"));
    first!.status = "active";
    harness.pass(61 * MINUTE_MS);
    await isolate.send(alice, bob);
    await eventually(() => expect(harness.registry.calls.keys).toBeGreaterThanOrEqual(3));
    expect(await isolate.send(alice, bob)).toBe("401 PROXY_AUTH_INVALID_AIT");
    harness.registry.fail(FAULTS.down);
    expect(await harness.newIsolate().send(alice, bob)).toBe("401 PROXY_AUTH_INVALID_AIT");
  });
});
