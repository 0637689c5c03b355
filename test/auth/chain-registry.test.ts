/** The chain over the real client of a registry, which answers, hangs or fails as a test says. */
import { beforeAll, expect, test } from "vitest";
import { HOOK } from "../../src/auth/form.ts";
import { createRegistry, type RegistryFetch } from "../../src/registry/registry.ts";
import {
  AIT_HEADER,
  type Agent,
  type ChainHarness,
  ISSUER,
  KID,
  newAgent,
  newChainHarness,
  NOW_MS,
  recordingLog,
  registryX,
  signedRequest,
  signJws,
} from "./fixture.ts";

type Served = { paths: string[]; mode: "up" | "hanging" | "down"; keys: { kid: string; status: string }[] };

let alice: Agent;
let bob: Agent;
let x: string;

beforeAll(async () => {
  [alice, bob, x] = await Promise.all([newAgent(), newAgent(), registryX()]);
});

/** A registry that has signed no list yet and validates every access token. */
function registryOf(served: Served): RegistryFetch {
  return async (path) => {
    served.paths.push(path);
    if (served.mode === "hanging") return new Promise<Response>(() => {});
    if (served.mode === "down") throw new TypeError("connection refused");
    if (path.endsWith("claw-keys.json")) {
      return Response.json({ keys: served.keys.map((key) => ({ ...key, alg: "EdDSA", crv: "Ed25519", x })) });
    }
    if (path.endsWith("/crl")) return Response.json({ code: "CRL_NOT_FOUND" }, { status: 404 });
    return new Response(null, { status: 204 });
  };
}

function harnessWith(served: Served, authDeadlineMs = 5_000): ChainHarness {
  const reader = createRegistry({
    settings: {
      registryUrl: "https://registry.example.com",
      registryIssuer: ISSUER,
      // Longer than a test may take: what ends a call here is the deadline of the chain.
      registryTimeoutMs: 120_000,
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
    },
    log: recordingLog(),
  });
  const harness = newChainHarness({ reader, fetch: registryOf(served), authDeadlineMs });
  harness.trusts(alice.did, bob.did);
  return harness;
}

const UP = (): Served => ({ paths: [], mode: "up", keys: [{ kid: KID, status: "active" }] });

async function hook(harness: ChainHarness, headers: Record<string, string> = {}, nonce?: string): Promise<string> {
  const request = await signedRequest(alice, bob.did, {
    headers,
    ...(nonce === undefined ? {} : { nonce }),
    timestamp: String(harness.nowMs / 1_000),
  });
  const result = await harness.chain.authenticate(request, HOOK, harness.scope);
  return result.ok ? "passed" : `${result.error.code} ${String(result.error.reason)}`;
}

const under = async (kid: string): Promise<Record<string, string>> => ({
  Authorization: `Claw ${await signJws({ ...AIT_HEADER, kid }, alice.claims)}`,
});

test("a warm hook asks the registry nothing", async () => {
  const served = UP();
  const harness = harnessWith(served);
  expect(await hook(harness)).toBe("passed");
  const cold = served.paths.length;
  expect(cold).toBe(3);
  for (let round = 0; round < 50; round += 1) expect(await hook(harness)).toBe("passed");
  expect(served.paths).toHaveLength(cold);
  expect(harness.store.reads).toBe(1);
});

test("200 requests with random kids cause at most one refresh", async () => {
  const served = UP();
  const harness = harnessWith(served);
  await hook(harness);
  harness.nowMs += 31_000;
  const before = served.paths.length;
  const told = await Promise.all(
    Array.from({ length: 200 }, async () => hook(harness, await under(`kid-${crypto.randomUUID()}`))),
  );
  expect(new Set(told.map((answer) => answer.split(" ")[0]))).toEqual(new Set(["PROXY_AUTH_INVALID_AIT"]));
  expect(served.paths.slice(before)).toEqual(["/.well-known/claw-keys.json"]);
});

test("a key that turns revoked ends the tokens it signed, remembered ones too, at the next refresh", async () => {
  const served = UP();
  const harness = harnessWith(served);
  expect(await hook(harness)).toBe("passed");
  served.keys = [
    { kid: KID, status: "revoked" },
    { kid: "next", status: "active" },
  ];
  harness.nowMs = NOW_MS + 31_000;
  expect(await hook(harness)).toBe("passed");
  await hook(harness, await under("another"));
  expect(await hook(harness)).toBe("PROXY_AUTH_INVALID_AIT ait-key-revoked");
});

test("a registry that hangs is given up at the deadline of the whole chain", async () => {
  const harness = harnessWith({ ...UP(), mode: "hanging" }, 150);
  expect(await hook(harness)).toBe("PROXY_AUTH_DEPENDENCY_UNAVAILABLE keys-unavailable");
});

test("a registry that is down costs no verified agent anything while its answers may be served", async () => {
  const served = UP();
  const harness = harnessWith(served);
  expect(await hook(harness)).toBe("passed");
  served.mode = "down";
  for (let minute = 1; minute <= 10; minute += 1) {
    harness.nowMs = NOW_MS + minute * 60_000;
    expect(await hook(harness), `minute ${minute}`).toBe("passed");
  }
});
