import { afterEach, describe, expect, test, vi } from "vitest";
import { type Agent, FAULTS, MINUTE_MS, newTown, SECOND_MS } from "./harness.ts";
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
    const town = await newTown();
    const isolate = town.newIsolate();
    const [alice, mallory, bob] = [await town.newAgent(), await town.newAgent(), await town.newAgent()];
    await town.pair(alice, bob);
    await town.pair(mallory, bob);
    town.registry.revoked = [entryOf(mallory)];
    expect([await isolate.send(alice, bob), await isolate.send(mallory, bob)]).toEqual(["202", REVOKED]);

    const olderIat = town.nowSeconds() - 3_600;
    town.registry.crl = () => town.registry.signedCrl({ iat: olderIat, revoked: [] });
    town.pass(6 * MINUTE_MS);
    expect([await isolate.send(alice, bob), await isolate.send(mallory, bob)]).toEqual(["202", REVOKED]);
    await eventually(() =>
      expect(town.linesOf("security.crl_rolled_back")).toMatchObject([{ level: "error", offeredIat: olderIat }]),
    );
    expect(await town.newIsolate().send(mallory, bob)).toBe(REVOKED);

    town.registry.crl = () => Response.json({ code: "CRL_NOT_FOUND" }, { status: 404 });
    town.pass(6 * MINUTE_MS);
    expect([await isolate.send(alice, bob), await isolate.send(mallory, bob)]).toEqual(["202", REVOKED]);
    await eventually(() => expect(town.linesOf("security.crl_withdrawn").length).toBeGreaterThan(0));
    expect(await town.newIsolate().send(mallory, bob)).toBe(REVOKED);
  });

  test.each([
    ["fail-closed", "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE"],
    ["fail-open", "202"],
  ])(
    "past its maximum age of 30 minutes %s answers %s, the revoked stay out, and a warning a minute says so",
    async (behavior, expected) => {
      const town = await newTown({ CRL_STALE_BEHAVIOR: behavior });
      const isolate = town.newIsolate();
      const [alice, mallory, bob] = [await town.newAgent(), await town.newAgent(), await town.newAgent()];
      await town.pair(alice, bob);
      town.registry.revoked = [entryOf(mallory)];
      expect(await isolate.send(alice, bob)).toBe("202");
      town.registry.fail(FAULTS.down, ["crl"]);
      town.pass(29 * MINUTE_MS);
      expect(await isolate.send(alice, bob)).toBe("202");
      town.pass(2 * MINUTE_MS);
      for (let n = 0; n < 5; n++) {
        town.pass(SECOND_MS);
        // oxlint-disable-next-line no-await-in-loop -- a second after the other
        expect(await isolate.send(alice, bob)).toBe(expected);
      }
      expect(await isolate.send(mallory, bob)).toBe(behavior === "fail-open" ? REVOKED : expected);
      expect(town.linesOf("registry.crl_too_old")).toHaveLength(1);
    },
  );
});

describe("keys are rotated while the registry is flapping", () => {
  test("agents under the old key never notice; one under the new key is 503 until a refresh gets through, one a 30 s at most", async () => {
    const town = await newTown();
    const isolate = town.newIsolate();
    const [alice, bob] = [await town.newAgent(), await town.newAgent()];
    await town.pair(alice, bob);
    expect(await isolate.send(alice, bob)).toBe("202");

    const { key, privateKey } = await town.newKey("registry-key-2");
    const newcomer = await town.newAgent({ kid: key.kid, key: privateKey });
    await town.pair(newcomer, bob);
    town.registry.keys.push(key);
    town.registry.fail(FAULTS[500], ["keys"]);
    town.registry.forgetCalls();
    for (let second = 0; second < 30; second += 5) {
      // oxlint-disable-next-line no-await-in-loop -- five seconds after the others
      expect([await isolate.send(alice, bob), await isolate.send(newcomer, bob)]).toEqual([
        "202",
        "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
      ]);
      town.pass(5 * SECOND_MS);
    }
    expect(town.registry.calls.keys).toBeLessThanOrEqual(2);
    town.registry.fail(null, ["keys"]);
    town.pass(5 * SECOND_MS);
    expect([await isolate.send(alice, bob), await isolate.send(newcomer, bob)]).toEqual(["202", "202"]);
  });

  test("a key seen revoked stays revoked though the registry swings back, here and in an isolate that starts in the outage", async () => {
    const town = await newTown();
    const isolate = town.newIsolate();
    const [alice, bob] = [await town.newAgent(), await town.newAgent()];
    await town.pair(alice, bob);
    const { key } = await town.newKey("registry-key-2");
    town.registry.keys.push(key);
    expect(await isolate.send(alice, bob)).toBe("202");

    const [first] = town.registry.keys;
    first!.status = "revoked";
    town.pass(61 * MINUTE_MS);
    await isolate.send(alice, bob);
    await eventually(async () => expect(await isolate.send(alice, bob)).toBe("401 PROXY_AUTH_INVALID_AIT"));
    first!.status = "active";
    town.pass(61 * MINUTE_MS);
    await isolate.send(alice, bob);
    await eventually(() => expect(town.registry.calls.keys).toBeGreaterThanOrEqual(3));
    expect(await isolate.send(alice, bob)).toBe("401 PROXY_AUTH_INVALID_AIT");
    town.registry.fail(FAULTS.down);
    expect(await town.newIsolate().send(alice, bob)).toBe("401 PROXY_AUTH_INVALID_AIT");
  });
});
