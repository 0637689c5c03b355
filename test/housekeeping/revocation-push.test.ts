/** Rounds of housekeeping against an external registry that is slow, or fails. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Housekeeping } from "../../src/housekeeping/housekeeping.ts";
import { newDid } from "../../src/wire/did.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import { ISSUER, KID, registryX, signJws } from "../auth/fixture.ts";

const SECOND_MS = 1_000;
const agentDid = newDid(new URL(ISSUER).hostname, "agent", newUlid(Date.now()));
const jti = newUlid(Date.now());

const registry = {
  /** How long each document takes. */
  takesMs: { keys: 0, crl: 0 },
  isDown: false,
  lists: 0,
};
let houses = 0;

beforeEach(async () => {
  const { keys } = await env.CACHE.list();
  await Promise.all(keys.map(({ name }) => env.CACHE.delete(name)));
  Object.assign(registry, { takesMs: { keys: 0, crl: 0 }, isDown: false, lists: 0 });
  vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"] });
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const signal = init?.signal;
    const isList = (input instanceof Request ? input.url : String(input)).endsWith("/v1/crl");
    if (isList) registry.lists += 1;
    await vi.advanceTimersByTimeAsync(registry.takesMs[isList ? "crl" : "keys"]);
    if (signal?.aborted === true) throw signal.reason;
    if (registry.isDown) throw new TypeError("connection refused");
    if (!isList) {
      const key = { kid: KID, alg: "EdDSA", crv: "Ed25519", x: await registryX(), status: "active" };
      return Response.json({ keys: [key] });
    }
    const iat = Math.floor(Date.now() / 1_000);
    const revocations = [{ jti, agentDid, revokedAt: iat }];
    const claims = { iss: ISSUER, jti: newUlid(Date.now()), iat, exp: iat + 86_400, revocations };
    return Response.json({ crl: await signJws({ alg: "EdDSA", typ: "CRL", kid: KID }, claims) });
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Housekeeping of an installation of its own; `told` is what the gates were told. */
function newChainHarness(settings: Record<string, string>) {
  const told: string[] = [];
  let isGateDown = false;
  const bindings = {
    ...env,
    REGISTRY_URL: `https://registry-${(houses += 1)}.example.net`,
    ...settings,
    GATE: {
      getByName: (did: string) => ({
        async endTokens(tokens: { jti: string }[]) {
          if (isGateDown) throw new Error("the gate is out of reach");
          told.push(...tokens.map((token) => `${did} ${token.jti}`));
        },
      }),
    },
  } as unknown as Env;
  const stub = env.HOUSEKEEPING.getByName(`harness ${houses}`);
  const round = () => runInDurableObject(stub, (_object, ctx) => new Housekeeping(ctx, bindings).alarm());
  return { told, round, gatesDown: (down: boolean) => void (isGateDown = down) };
}

const START_MS = Date.now();
const BROUGHT = [`${agentDid} ${jti}`];

describe("the list of an external registry", () => {
  test("is brought to the gates though it takes longer than a request is given", async () => {
    const harness = newChainHarness({ AUTH_DEADLINE_MS: "500" });
    registry.takesMs.crl = 4_500;
    await harness.round();
    expect(harness.told).toEqual(BROUGHT);
  });

  test("has all of its time though its keys take theirs first", async () => {
    const harness = newChainHarness({});
    registry.takesMs = { keys: 4_000, crl: 4_000 };
    await harness.round();
    expect(harness.told).toEqual(BROUGHT);
  });

  test("is fetched in the next round when it could not be, whatever CRL_REFRESH_MS is, and then in its own rhythm", async () => {
    const harness = newChainHarness({ CRL_REFRESH_MS: "86400000", CRL_MAX_AGE_MS: "86400000" });
    registry.isDown = true;
    await harness.round();
    expect(harness.told).toEqual([]);

    registry.isDown = false;
    vi.setSystemTime(Date.now() + 15 * SECOND_MS);
    await harness.round();
    expect(harness.told).toEqual(BROUGHT);
    expect(registry.lists).toBe(1);

    vi.setSystemTime(Date.now() + 3_600 * SECOND_MS);
    await harness.round();
    expect(registry.lists).toBe(1);
    vi.setSystemTime(Date.now() + 86_400 * SECOND_MS);
    await harness.round();
    expect(registry.lists).toBe(2);
  });

  test("is brought once more when nobody goes by an older list any longer, and then no more", async () => {
    const harness = newChainHarness({ CRL_MAX_AGE_MS: "1800000" });
    for (const minutes of [0, 10, 29, 31, 60, 90]) {
      vi.setSystemTime(START_MS + minutes * 60 * SECOND_MS);
      // oxlint-disable-next-line no-await-in-loop -- one round after the other
      await harness.round();
    }
    expect(harness.told).toEqual([...BROUGHT, ...BROUGHT]);
  });

  test("is brought in the next round to a gate that could not be reached", async () => {
    const harness = newChainHarness({});
    harness.gatesDown(true);
    await harness.round();
    harness.gatesDown(false);
    vi.setSystemTime(Date.now() + 15 * SECOND_MS);
    await harness.round();
    expect(harness.told).toEqual(BROUGHT);
  });
});
